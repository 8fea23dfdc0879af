"""``turnpike orgs groups``: list, add, remove, members, add-member, remove-member."""

from urllib.parse import quote

import rich_click as click

from app.api.admin.orgs_wire import GroupList, GroupMemberList, NewGroup, NewGroupMember
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table
from app.identity.groups import GroupMember, ResourceGroup


@click.group()
def groups() -> None:
    """Resource groups: parts of an org that calls can be billed to, by their id."""


@groups.command("list")
@click.argument("org")
@json_option
@click.pass_obj
def list_groups(invocation: Invocation, org: str, as_json: bool) -> None:
    """List the resource groups of ORG."""

    async def work(client: AdminClient) -> list[ResourceGroup]:
        return await client.every(_path(org), GroupList)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    show_table(
        [Column("Name"), Column("Created"), Column("Id")],
        [[group.name, moment(group.created_at_ms), group.id] for group in found],
        empty="It has no resource groups yet: turnpike orgs groups add ORG NAME",
    )


@groups.command()
@click.argument("org")
@click.argument("name")
@json_option
@click.pass_obj
def add(invocation: Invocation, org: str, name: str, as_json: bool) -> None:
    """Add the resource group NAME to ORG."""

    async def work(client: AdminClient) -> ResourceGroup:
        return await client.send("POST", _path(org), ResourceGroup, body=NewGroup(name))

    _show(ask(invocation, work), as_json, "Added {0.name}; bill calls to it with {0.id}.")


@groups.command()
@click.argument("org")
@click.argument("group")
@json_option
@click.pass_obj
def remove(invocation: Invocation, org: str, group: str, as_json: bool) -> None:
    """End GROUP of ORG, by name or id: nothing more can be billed to it."""

    async def work(client: AdminClient) -> ResourceGroup:
        return await client.send("DELETE", _path(org, group), ResourceGroup)

    _show(ask(invocation, work), as_json, "Removed {0.name}.")


@groups.command()
@click.argument("org")
@click.argument("group")
@json_option
@click.pass_obj
def members(invocation: Invocation, org: str, group: str, as_json: bool) -> None:
    """List who may bill calls to GROUP of ORG, beside its admins."""

    async def work(client: AdminClient) -> list[GroupMember]:
        return await client.every(f"{_path(org, group)}/members", GroupMemberList)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    show_table(
        [Column("Name"), Column("Id")],
        [[member.user_name, member.user_id] for member in found],
        empty="Only the org's admins may bill to it: turnpike orgs groups add-member",
    )


@groups.command("add-member")
@click.argument("org")
@click.argument("group")
@click.argument("user")
@json_option
@click.pass_obj
def add_member(invocation: Invocation, org: str, group: str, user: str, as_json: bool) -> None:
    """Let USER, a member of ORG, bill calls to GROUP."""

    async def work(client: AdminClient) -> GroupMember:
        path = f"{_path(org, group)}/members"
        return await client.send("POST", path, GroupMember, body=NewGroupMember(user))

    _show(ask(invocation, work), as_json, f"{{0.user_name}} may bill calls to {group} now.")


@groups.command("remove-member")
@click.argument("org")
@click.argument("group")
@click.argument("user")
@json_option
@click.pass_obj
def remove_member(invocation: Invocation, org: str, group: str, user: str, as_json: bool) -> None:
    """Take USER out of GROUP of ORG."""

    async def work(client: AdminClient) -> GroupMember:
        path = f"{_path(org, group)}/members/{quote(user, safe='')}"
        return await client.send("DELETE", path, GroupMember)

    _show(ask(invocation, work), as_json, f"{{0.user_name}} may bill to {group} no longer.")


def _path(org: str, group: str = "") -> str:
    path = f"/api/orgs/{quote(org, safe='')}/groups"
    return f"{path}/{quote(group, safe='')}" if group else path


def _show(found: ResourceGroup | GroupMember, as_json: bool, sentence: str) -> None:
    if as_json:
        show_json(found)
    else:
        click.echo(sentence.format(found))
