"""``turnpike ledger``: audit, statement, repair. They read the database file themselves."""

import csv
import itertools
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import rich_click as click

from app.cli.client import AdminClient, CommandFailed, ask
from app.cli.invocation import Invocation
from app.cli.output import (
    Column,
    json_option,
    moment,
    on_terminal,
    show_json,
    show_progress,
    show_table,
    usd,
)
from app.cli.progress import progress_bar
from app.ledger.repair import GiveBack, Plan, plan_repair, rebuild_sums
from app.ledger.statement import Line, Statement, open_statement
from app.storage.database import DATABASE_NAME
from app.storage.lock import DataDirLock

SHOWN_MAX = 1000
"""Lines of a statement that a terminal gets; CSV and JSON get all."""

file_option = click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Another database file, or a backup; without it, that of the data directory.",
)


@click.group()
def ledger() -> None:
    """Prove the books, look into them, and put right what can be."""


@ledger.command()
@file_option
@json_option
@click.pass_obj
def audit(invocation: Invocation, file: Path | None, as_json: bool) -> int:
    """Check every sum against the journal, and the journal against its hashes.

    Runs beside a server. The exit status is 1 where anything is wrong.
    """
    from app.ledger.audit import audit_file

    with _database(invocation, file) as path, progress_bar() as progress:
        found = audit_file(path, lambda done, steps: progress("auditing", done, steps))
    if as_json:
        show_json(found)
    elif found.problems:
        for problem in found.problems:
            click.echo(problem)
        click.echo(
            f"{len(found.problems)} problems. turnpike ledger repair explains what can be done.",
            err=True,
        )
    else:
        click.echo(
            f"All is well: {found.entries} entries, {found.calls} calls that ended,"
            f" {found.open_holds} that run. The chain of hashes ends at {found.chain_seq}"
            f" {found.chain_head}."
        )
    return 1 if found.problems else 0


@ledger.command()
@click.argument("account")
@click.option("--since", metavar="DATE", help="From this date or time on (UTC).")
@click.option("--until", metavar="DATE", help="Up to, and without, this date or time (UTC).")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV; amounts are in nano-USD.")
@file_option
@json_option
@click.pass_obj
def statement(
    invocation: Invocation,
    account: str,
    since: str | None,
    until: str | None,
    as_csv: bool,
    file: Path | None,
    as_json: bool,
) -> int:
    """Show every entry of ACCOUNT with the balance after it.

    ACCOUNT is a user or an org, by name or id: all its accounts together, what is left of its
    credit less what it owes. NAME:KIND or NAME:KIND:PERIOD is one of them (ann:monthly:2026-11),
    and house:KIND one of the house's (house:cogs).
    """
    from app.api.admin.usage import moment_ms

    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    since_ms = None if since is None else moment_ms(since, "--since")
    until_ms = None if until is None else moment_ms(until, "--until")
    with _database(invocation, file) as path, open_statement(path, account) as found:
        lines = found.lines(since_ms, until_ms)
        if as_csv:
            _show_csv(lines)
        elif as_json:
            _show_json(found, lines)
        else:
            _show_lines(lines)
        closing = found.closing
    if closing is None:
        raise AssertionError("the lines were all taken")
    if not (as_csv or as_json):
        click.echo(
            f"{found.title}: {usd(closing.opening_nano_usd)} before,"
            f" {usd(closing.came_nano_usd)} came, {usd(closing.went_nano_usd)} went,"
            f" {usd(closing.closing_nano_usd)} now ({closing.lines} entries)."
        )
    if not closing.adds_up:
        raise CommandFailed(
            f"The balance that is kept is {usd(closing.kept_nano_usd or 0)}, the entries come to"
            f" {usd(closing.closing_nano_usd)}: run turnpike ledger audit."
        )
    return 0


@ledger.command()
@click.option("--apply", "apply", is_flag=True, help="Do it; without it, only explain.")
@click.option("--author", help="Who orders it, for the adjustments; needed with --apply.")
@click.option("--reason", help="Why, for the adjustments; needed with --apply.")
@json_option
@click.pass_obj
def repair(
    invocation: Invocation, apply: bool, author: str | None, reason: str | None, as_json: bool
) -> int:
    """Explain what an audit finds, and with --apply do what can be done, with no server running.

    The journal is never edited. Sums beside it are made again from it; what a call was charged too
    much is given back by an adjustment.
    """
    if apply and not (author and reason):
        raise click.UsageError("--apply needs --author and --reason, which stay on record.")
    data_dir = invocation.config().data_dir()
    path = data_dir / DATABASE_NAME
    plan = plan_repair(path)
    if as_json:
        show_json(plan)
    else:
        _explain(plan, apply)
    if not plan.problems:
        return 0
    if not apply or plan.restore is not None:
        return 1
    if plan.rebuilds_sums:
        with DataDirLock(data_dir):
            rebuild_sums(path)
        show_progress("The sums were made again from the journal.")
    for back in plan.gives_back:
        _book(invocation, back, f"{reason} (ordered by {author}; call {back.call_id})")
    left = plan_repair(path).problems
    if left:
        raise CommandFailed(f"{len(left)} problems remain, the first: {left[0]}")
    if not as_json:
        click.echo("Done: an audit finds nothing wrong any more.")
    return 0


def _book(invocation: Invocation, back: GiveBack, reason: str) -> None:
    """Append one adjustment, through the ledger's own verb."""
    from app.api.admin.billing_wire import NewAdjustment
    from app.billing.credit_book import Booked

    dollars, nano = divmod(back.amount_nano_usd, 10**9)
    amount = f"{dollars}.{nano:09d}"
    asked = NewAdjustment(payer=back.payer_name, amount_usd=amount, reason=reason, id=back.id)

    async def work(client: AdminClient) -> Booked:
        return await client.send("POST", "/api/adjustments", Booked, body=asked)

    ask(invocation, work)


def _explain(plan: Plan, apply: bool) -> None:
    if not plan.problems:
        click.echo("Nothing is wrong.")
        return
    for text in (*plan.problems, "", *plan.explanations):
        click.echo(text)
    if plan.restore is not None:
        click.echo(plan.restore)
    verb = "Gives" if apply else "Would give"
    for back in plan.gives_back:
        click.echo(
            f"{verb} {usd(back.amount_nano_usd)} to {back.payer_name or back.payer_id} for call"
            f" {back.call_id}, which was charged more than it cost."
        )


@contextmanager
def _database(invocation: Invocation, file: Path | None) -> Iterator[Path]:
    """The database file that is meant; that of a backup is unpacked for as long as it is read."""
    if file is None:
        yield invocation.config().data_dir() / DATABASE_NAME
    elif file.is_file() and tarfile.is_tarfile(file):
        from app.storage.archive import unpack

        with tempfile.TemporaryDirectory(prefix="turnpike-") as folder:
            unpack(file, Path(folder))
            yield Path(folder) / DATABASE_NAME
    else:
        yield file


_COLUMNS = ("seq", "at_ms", "period", "kind", "subject", "account", "other")


def _show_csv(lines: Iterator[Line]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((*_COLUMNS, "amount_nano_usd", "balance_nano_usd"))
    for line in lines:
        writer.writerow(msgspec.structs.astuple(line))


def _show_json(found: Statement, lines: Iterator[Line]) -> None:
    """One document, written as it is read."""
    encode = msgspec.json.encode
    click.echo(f'{{"account":{encode(found.title).decode()},"lines":[', nl=False)
    for number, line in enumerate(lines):
        click.echo(f"{',' if number else ''}\n{encode(line).decode()}", nl=False)
    click.echo(f'\n],"closing":{encode(found.closing).decode()}}}')


def _show_lines(lines: Iterator[Line]) -> None:
    columns = [
        *(Column(title) for title in ("Time", "Kind", "Subject", "Account", "Other side")),
        Column("Amount", number=True),
        Column("Balance", number=True),
    ]
    limit = SHOWN_MAX if on_terminal() else None
    rows = [_cells(line) for line in itertools.islice(lines, limit)]
    show_table(columns, rows, empty="No entries in that time.")
    left = sum(1 for _ in lines)
    if left:
        click.echo(f"and {left} more: narrow it with --since and --until, or take --csv")


def _cells(line: Line) -> list[str]:
    return [
        moment(line.at_ms),
        line.kind,
        line.subject,
        line.account,
        line.other,
        usd(line.amount_nano_usd),
        usd(line.balance_nano_usd),
    ]
