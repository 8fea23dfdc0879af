"""``turnpike users``: add, list, tier."""

from urllib.parse import quote

import rich_click as click

from app.api.admin.wire import NewTier, NewUser, UserList
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table
from app.identity.users import Role, User


@click.group()
def users() -> None:
    """The people who may call, and the tier each is on."""


@users.command()
@click.argument("name")
@click.option("--tier", required=True, help="The name of a tier of the configuration.")
@click.option(
    "--role",
    type=click.Choice(["member", "owner"]),
    default="member",
    show_default=True,
    help="An owner may use the admin routes too.",
)
@json_option
@click.pass_obj
def add(invocation: Invocation, name: str, tier: str, role: Role, as_json: bool) -> None:
    """Add the user NAME."""
    asked = NewUser(name=name, tier=tier, role=role)

    async def work(client: AdminClient) -> User:
        return await client.send("POST", "/api/users", User, body=asked)

    _show_one(ask(invocation, work), as_json, "Added {0.name}, {0.role}, on tier {0.tier}.")


@users.command("list")
@json_option
@click.pass_obj
def list_users(invocation: Invocation, as_json: bool) -> None:
    """List the users."""
    found = ask(invocation, _all_users)
    if as_json:
        show_json(found)
        return
    show_table(
        [Column("Name"), Column("Tier"), Column("Role"), Column("Created"), Column("Id")],
        [[user.name, user.tier, user.role, moment(user.created_at_ms), user.id] for user in found],
        empty="There are no users yet: turnpike users add NAME --tier TIER",
    )


@users.command()
@click.argument("name")
@click.argument("tier")
@json_option
@click.pass_obj
def tier(invocation: Invocation, name: str, tier: str, as_json: bool) -> None:
    """Put the user NAME on TIER, from the next call on."""

    async def work(client: AdminClient) -> User:
        path = f"/api/users/{quote(name, safe='')}/tier"
        return await client.send("PUT", path, User, body=NewTier(tier=tier))

    _show_one(ask(invocation, work), as_json, "{0.name} is on tier {0.tier} now.")


async def _all_users(client: AdminClient) -> list[User]:
    return await client.every("/api/users", UserList)


def _show_one(user: User, as_json: bool, sentence: str) -> None:
    if as_json:
        show_json(user)
    else:
        click.echo(sentence.format(user))
