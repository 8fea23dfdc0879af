"""``turnpike limits``: set, remove, list."""

import rich_click as click

from app.api.admin.limits_wire import LimitList, LimitQuery, NewLimit
from app.billing.budgets import SpendingLimit
from app.billing.limit_subjects import LimitScope
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, show_json, show_table, usd
from app.identity.key_format import public_part

_scope = click.argument("scope", type=click.Choice(["key", "user", "member", "group", "payer"]))


@click.group()
def limits() -> None:
    """Spending limits: what a key, user, member, resource group or payer may spend in a month.

    SUBJECT is a key (tp_...), a user's name, ORG/USER for a member of an org, a resource group's
    id, or for a payer the name of the user or org whose money it is.
    """


@limits.command("set")
@_scope
@click.argument("subject")
@click.argument("amount")
@json_option
@click.pass_obj
def set_limit(
    invocation: Invocation, scope: LimitScope, subject: str, amount: str, as_json: bool
) -> None:
    """Let SUBJECT spend AMOUNT in USD a month and no more; 0 stops it."""
    asked = NewLimit(scope=scope, subject=_named(scope, subject), amount_usd=amount)

    async def work(client: AdminClient) -> SpendingLimit:
        return await client.send("PUT", "/api/limits", SpendingLimit, body=asked)

    _show_one(ask(invocation, work), as_json, "{0.scope} {0.subject}: at most {1} a month.")


@limits.command()
@_scope
@click.argument("subject")
@json_option
@click.pass_obj
def remove(invocation: Invocation, scope: LimitScope, subject: str, as_json: bool) -> None:
    """End the limit of SUBJECT."""
    asked = LimitQuery(scope=scope, subject=_named(scope, subject))

    async def work(client: AdminClient) -> SpendingLimit:
        query = {"scope": asked.scope, "subject": asked.subject}
        return await client.send("DELETE", "/api/limits", SpendingLimit, query=query)

    _show_one(ask(invocation, work), as_json, "{0.scope} {0.subject}: no limit any more, was {1}.")


@limits.command("list")
@json_option
@click.pass_obj
def list_limits(invocation: Invocation, as_json: bool) -> None:
    """List the limits, and how far this month has used them up."""
    found = ask(invocation, _all_limits)
    if as_json:
        show_json(found)
        return
    show_table(
        [
            Column("Scope"),
            Column("Subject"),
            Column("Limit", number=True),
            Column("Spent", number=True),
            Column("Held", number=True),
            Column("Set by"),
        ],
        [
            [
                limit.scope,
                limit.subject,
                usd(limit.amount_nano_usd),
                _or_dash(limit.posted_nano_usd),
                _or_dash(limit.held_nano_usd),
                limit.set_by,
            ]
            for limit in found
        ],
        empty="There are no spending limits yet: turnpike limits set SCOPE SUBJECT AMOUNT",
    )


async def _all_limits(client: AdminClient) -> list[SpendingLimit]:
    return await client.every("/api/limits", LimitList)


def _named(scope: LimitScope, subject: str) -> str:
    """A key as the part of it that is no secret, so that none stands in an address or a log."""
    return public_part(subject) if scope == "key" else subject


def _or_dash(nano_usd: int | None) -> str:
    return "-" if nano_usd is None else usd(nano_usd)


def _show_one(limit: SpendingLimit, as_json: bool, sentence: str) -> None:
    if as_json:
        show_json(limit)
    else:
        click.echo(sentence.format(limit, usd(limit.amount_nano_usd)))
