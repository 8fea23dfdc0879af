"""``turnpike usage``, and ``turnpike usage rows``."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import rich_click as click

from app.api.admin.usage_wire import UsageList, UsageRowList
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table, usd
from app.metering.calls import PAGE_MAX, UsageCall
from app.metering.export import calls_csv, calls_header, summary_csv
from app.metering.questions import GROUPINGS
from app.metering.usage import UsageSummary

ROWS_SHOWN = 100
_csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
_since_option = click.option("--since", metavar="DATE", help="From this date or time on (UTC).")
_until_option = click.option(
    "--until", metavar="DATE", help="Up to, and without, this date or time (UTC)."
)
_user_option = click.option("--user", help="Only this user's.")
_org_option = click.option("--org", help="Only what this org pays for.")


@click.group(invoke_without_command=True)
@click.option(
    "--by",
    type=click.Choice(GROUPINGS),
    multiple=True,
    default=("model",),
    show_default=True,
    help="What to add up by; may be given several times.",
)
@_since_option
@_until_option
@_user_option
@_org_option
@_csv_option
@json_option
@click.pass_context
def usage(
    context: click.Context,
    by: tuple[str, ...],
    since: str | None,
    until: str | None,
    user: str | None,
    org: str | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show what was used, and what it cost."""
    if context.invoked_subcommand is not None:
        return
    query = _given(by=",".join(by), since=since, until=until, user=user, org=org, format="json")

    async def work(client: AdminClient) -> UsageList:
        return await client.send("GET", "/api/usage", UsageList, query=query)

    found = ask(context.obj, work)
    if as_json:
        show_json(found.data)
    elif as_csv:
        click.echo("".join(summary_csv(found.by, found.data)), nl=False)
    else:
        _show_sums(by, found.data)


@usage.command()
@_since_option
@_until_option
@_user_option
@_org_option
@click.option(
    "--limit", type=click.IntRange(min=1), default=ROWS_SHOWN, show_default=True, help="How many."
)
@_csv_option
@json_option
@click.pass_obj
def rows(
    invocation: Invocation,
    since: str | None,
    until: str | None,
    user: str | None,
    org: str | None,
    limit: int,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Show single calls, newest first. While a call's cost is to come, what is held is shown."""
    query = _given(since=since, until=until, user=user, org=org, format="json")
    found = ask(invocation, lambda client: _calls(client, query, limit))
    if as_json:
        show_json(found)
    elif as_csv:
        click.echo(calls_header() + "".join(calls_csv(found)), nl=False)
    else:
        _show_calls(found)


async def _calls(client: AdminClient, query: Mapping[str, str], limit: int) -> list[UsageCall]:
    found: list[UsageCall] = []
    cursor: str | None = ""
    while cursor is not None and len(found) < limit:
        size = str(min(limit - len(found), PAGE_MAX))
        asked = {**query, "limit": size} | ({"cursor": cursor} if cursor else {})
        page = await client.send("GET", "/api/usage/rows", UsageRowList, query=asked)
        found += page.data
        cursor = page.next_cursor
    return found


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _seconds(ms: int) -> str:
    return f"{ms // 1000}.{ms % 1000:03d}"


class _Other(NamedTuple):
    """A column that is shown where anybody has something in it."""

    title: str
    of: Callable[[UsageSummary], int]
    in_ms: bool = False

    def shown(self, line: UsageSummary) -> str:
        return _seconds(self.of(line)) if self.in_ms else str(self.of(line))


_OTHERS = (
    _Other("Images", lambda line: line.images),
    _Other("Characters", lambda line: line.characters),
    _Other("Audio s", lambda line: line.audio_ms, in_ms=True),
    _Other("Video s", lambda line: line.video_ms, in_ms=True),
)


def _show_sums(by: tuple[str, ...], lines: list[UsageSummary]) -> None:
    others = [each for each in _OTHERS if any(each.of(line) for line in lines)]
    numbers = (
        *("Calls", "Input tokens", "Output tokens"),
        *(each.title for each in others),
        *("Compute s", "Cost"),
    )
    show_table(
        [
            *(Column(grouping.capitalize()) for grouping in by),
            *(Column(title, number=True) for title in numbers),
        ],
        [
            [
                *(line.labels[grouping] or "-" for grouping in by),
                str(line.calls),
                str(line.input_tokens),
                str(line.output_tokens),
                *(each.shown(line) for each in others),
                _seconds(line.compute_ns // 10**6),
                usd(line.cost_nano_usd),
            ]
            for line in lines
        ],
        empty="No calls were made in that time.",
    )


def _show_calls(calls: list[UsageCall]) -> None:
    show_table(
        [
            Column("Time"),
            Column("User"),
            Column("Offer"),
            Column("Outcome"),
            Column("Input tokens", number=True),
            Column("Output tokens", number=True),
            Column("ms", number=True),
            Column("Cost", number=True),
        ],
        [
            [
                moment(call.at_ms),
                call.user_name or call.user_id,
                call.offer,
                call.outcome,
                str(call.input_tokens + call.cache_read_tokens + call.cache_write_tokens),
                str(call.output_tokens + call.reasoning_tokens),
                str(call.latency_ms),
                f"{usd(call.cost_nano_usd)}{' pending' if call.pending else ''}",
            ]
            for call in calls
        ],
        empty="No calls were made in that time.",
    )
