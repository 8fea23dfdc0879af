"""``turnpike orgs members``: list, add, role, remove."""

from urllib.parse import quote

import rich_click as click

from app.api.admin.orgs_wire import MemberList, NewMember, NewRole
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table
from app.identity.members import Member, MemberRole


@click.group()
def members() -> None:
    """Who belongs to an org: each member is a seat."""


@members.command("list")
@click.argument("org")
@json_option
@click.pass_obj
def list_members(invocation: Invocation, org: str, as_json: bool) -> None:
    """List the members of ORG."""

    async def work(client: AdminClient) -> list[Member]:
        return await client.every(_path(org), MemberList)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    show_table(
        [Column("Name"), Column("Role"), Column("Added"), Column("Id")],
        [[each.user_name, each.role, moment(each.added_at_ms), each.user_id] for each in found],
        empty="It has no members.",
    )


@members.command()
@click.argument("org")
@click.argument("user")
@click.option(
    "--role",
    type=click.Choice(["member", "admin"]),
    default="member",
    show_default=True,
    help="An admin may change the org.",
)
@json_option
@click.pass_obj
def add(invocation: Invocation, org: str, user: str, role: MemberRole, as_json: bool) -> None:
    """Give USER a seat in ORG."""
    asked = NewMember(user=user, role=role)

    async def work(client: AdminClient) -> Member:
        return await client.send("POST", _path(org), Member, body=asked)

    _show_one(
        ask(invocation, work), as_json, f"{{0.user_name}} is a seat of {org} now, {{0.role}}."
    )


@members.command()
@click.argument("org")
@click.argument("user")
@click.argument("role", type=click.Choice(["member", "admin"]))
@json_option
@click.pass_obj
def role(invocation: Invocation, org: str, user: str, role: MemberRole, as_json: bool) -> None:
    """Make USER of ORG an admin, or a member."""

    async def work(client: AdminClient) -> Member:
        return await client.send("PUT", f"{_path(org, user)}/role", Member, body=NewRole(role))

    _show_one(ask(invocation, work), as_json, f"{{0.user_name}} of {org} is {{0.role}} now.")


@members.command()
@click.argument("org")
@click.argument("user")
@json_option
@click.pass_obj
def remove(invocation: Invocation, org: str, user: str, as_json: bool) -> None:
    """Take the seat of USER in ORG."""

    async def work(client: AdminClient) -> Member:
        return await client.send("DELETE", _path(org, user), Member)

    _show_one(ask(invocation, work), as_json, f"{{0.user_name}} has no seat in {org} any more.")


def _path(org: str, user: str = "") -> str:
    path = f"/api/orgs/{quote(org, safe='')}/members"
    return f"{path}/{quote(user, safe='')}" if user else path


def _show_one(member: Member, as_json: bool, sentence: str) -> None:
    if as_json:
        show_json(member)
    else:
        click.echo(sentence.format(member))
