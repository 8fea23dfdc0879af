"""``turnpike billing`` and ``turnpike adjust``."""

import rich_click as click

from app.api.admin.billing_wire import NewAdjustment
from app.billing.credit_book import Booked
from app.billing.overview import Overview
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table, usd

_LIMITS = {"payer": "In all", "user": "User", "key": "Key", "member": "Member", "group": "Group"}


@click.command()
@click.argument("payer", required=False)
@json_option
@click.pass_obj
def billing(invocation: Invocation, payer: str | None, as_json: bool) -> None:
    """Show the month of PAYER, a user or an org: credit, use, limits, what will be due.

    Without PAYER: that of the first owner.
    """
    query = {} if payer is None else {"payer": payer}

    async def work(client: AdminClient) -> Overview:
        return await client.send("GET", "/api/billing", Overview, query=query)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    columns = [Column("What"), Column("Amount", number=True), Column("Notes")]
    show_table(columns, [*_month(found), *_credit(found), *_limits(found)], empty="")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("payer")
@click.argument("amount")
@click.option("--reason", required=True, help="Why; it stays on record with who did it.")
@click.option("--id", "adjustment_id", metavar="ID", help="Makes it once, if it is sent again.")
@json_option
@click.pass_obj
def adjust(
    invocation: Invocation,
    payer: str,
    amount: str,
    reason: str,
    adjustment_id: str | None,
    as_json: bool,
) -> None:
    """Correct the credit of PAYER by AMOUNT in USD: 5.00 gives, -5.00 takes."""
    asked = NewAdjustment(payer=payer, amount_usd=amount, reason=reason, id=adjustment_id)

    async def work(client: AdminClient) -> Booked:
        return await client.send("POST", "/api/adjustments", Booked, body=asked)

    booked = ask(invocation, work)
    if as_json:
        show_json(booked)
        return
    done = "Gave" if booked.amount_nano_usd > 0 else "Took"
    click.echo(
        f"{done} {usd(abs(booked.amount_nano_usd))}"
        f" {'to' if booked.amount_nano_usd > 0 else 'from'} {booked.payer_name}: {booked.reason}"
        f" ({booked.id})."
    )


def _month(found: Overview) -> list[list[str]]:
    """The month's own lines; those that say nothing are left out."""
    pending = found.pending
    lines = [
        ["Payer", "", f"{found.payer.name}, {found.payer.kind} on tier {found.tier}"],
        ["Month", "", f"{found.period}, until {found.resets_at}"],
        ["Credit left", usd(found.credit_nano_usd), ""],
        ["Held by calls", usd(found.held_nano_usd), ""],
        ["Used", usd(found.used_nano_usd), ""],
        ["Projected use", _projected(found), "by the end of the month, going on like this"],
        ["Due", usd(found.due_nano_usd), "as things are"],
    ]
    if pending.calls:
        note = f"{pending.calls} calls wait for their provider's figure"
        lines.insert(4, ["Of it pending", usd(pending.held_nano_usd), note])
    most = found.overage_limit_nano_usd
    for name, amount, note in (
        ("Of it overage", found.overage_nano_usd, "" if most is None else f"at most {usd(most)}"),
        ("Of it fee", found.fee_nano_usd, found.tier),
        ("Of it endpoints", found.endpoints_nano_usd, ""),
    ):
        if amount:
            lines.append([name, usd(amount), note])
    return lines


def _projected(found: Overview) -> str:
    return "-" if found.projected_nano_usd is None else usd(found.projected_nano_usd)


def _credit(found: Overview) -> list[list[str]]:
    return [
        [
            f"Credit {grant.id}, {grant.kind}",
            usd(grant.left_nano_usd),
            f"of {usd(grant.granted_nano_usd)}, expires {moment(grant.expires_at_ms, 'never')}",
        ]
        for grant in found.grants
    ]


def _limits(found: Overview) -> list[list[str]]:
    return [
        [
            f"Limit: {_LIMITS.get(limit.scope, limit.scope)}",
            usd(limit.left_nano_usd),
            f"left of {usd(limit.amount_nano_usd)} for {limit.subject_name}",
        ]
        for limit in found.limits
    ]
