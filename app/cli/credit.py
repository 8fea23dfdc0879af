"""``turnpike credit``: give, list."""

from typing import Literal

import rich_click as click

from app.api.admin.billing_wire import CreditList, GivenCredit, NewCredit
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table, usd


@click.group()
def credit() -> None:
    """Credit that is given by hand: bought, or a promotion."""


@credit.command()
@click.argument("payer")
@click.argument("amount")
@click.option(
    "--kind",
    type=click.Choice(["purchased", "promotional"]),
    default="purchased",
    show_default=True,
    help="Purchased credit does not expire; promotional credit has a date.",
)
@click.option("--reference", required=True, help="Makes it once: the payment, or the campaign.")
@click.option("--expires", metavar="DATE", help="From this date or time on (UTC) it is gone.")
@click.option("--note", default="", help="Whatever you want to remember.")
@json_option
@click.pass_obj
def give(
    invocation: Invocation,
    payer: str,
    amount: str,
    kind: Literal["purchased", "promotional"],
    reference: str,
    expires: str | None,
    note: str,
    as_json: bool,
) -> None:
    """Give AMOUNT in USD to PAYER, a user or an org. Giving it again changes nothing."""
    asked = NewCredit(
        payer=payer,
        kind=kind,
        amount_usd=amount,
        reference=reference,
        expires=expires,
        note=note,
    )

    async def work(client: AdminClient) -> GivenCredit:
        return await client.send("POST", "/api/credit", GivenCredit, body=asked)

    given = ask(invocation, work)
    if as_json:
        show_json(given)
        return
    end = f", expires {moment(given.expires_at_ms)}" if given.expires_at_ms is not None else ""
    click.echo(
        f"{given.payer} has {usd(given.granted_nano_usd)} of {given.kind} credit for"
        f" {given.reference}{end}; {usd(given.left_nano_usd)} of it is left."
    )


@credit.command("list")
@click.argument("payer")
@json_option
@click.pass_obj
def list_credit(invocation: Invocation, payer: str, as_json: bool) -> None:
    """List all credit that PAYER was ever given, newest first."""

    async def work(client: AdminClient) -> list[GivenCredit]:
        found: list[GivenCredit] = []
        before: int | None = None
        while True:
            query = {"payer": payer} | ({} if before is None else {"before": str(before)})
            page = await client.send("GET", "/api/credit", CreditList, query=query)
            found += page.data
            before = page.next_before
            if before is None:
                return found

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    numbers = ("Given", "Spent", "Expired", "Left")
    show_table(
        [
            Column("Kind"),
            Column("Reference"),
            Column("Expires"),
            *(Column(title, number=True) for title in numbers),
        ],
        [
            [
                line.kind,
                line.reference,
                moment(line.expires_at_ms, "never"),
                usd(line.granted_nano_usd),
                usd(line.spent_nano_usd),
                usd(line.expired_nano_usd),
                usd(line.left_nano_usd),
            ]
            for line in found
        ],
        empty=f"{payer} was not given any credit yet.",
    )
