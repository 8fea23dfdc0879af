"""``turnpike orgs``: add, list, tier, default-payer; and the groups of commands of other files."""

from urllib.parse import quote

import rich_click as click

from app.api.admin.orgs_wire import DefaultPayer, NewOrg, OrgList
from app.api.admin.wire import NewTier
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.org_groups import groups
from app.cli.org_members import members
from app.cli.org_switches import switch_off, switch_on, switches
from app.cli.output import Column, json_option, moment, show_json, show_table
from app.identity.orgs import Org


@click.group()
def orgs() -> None:
    """Orgs, whose money can pay for their members' calls."""


for command in (members, groups, switches, switch_off, switch_on):
    orgs.add_command(command)


@orgs.command()
@click.argument("name")
@click.option("--tier", required=True, help="The name of a tier that is for orgs.")
@click.option("--admin", required=True, help="The user who is its first member and runs it.")
@click.option("--default-payer", is_flag=True, help="Pay for members' calls that name no payer.")
@json_option
@click.pass_obj
def add(
    invocation: Invocation, name: str, tier: str, admin: str, default_payer: bool, as_json: bool
) -> None:
    """Add the org NAME."""
    asked = NewOrg(name=name, tier=tier, admin=admin, default_payer=default_payer)

    async def work(client: AdminClient) -> Org:
        return await client.send("POST", "/api/orgs", Org, body=asked)

    _show_one(
        ask(invocation, work), as_json, f"Added {{0.name}} on tier {{0.tier}}, run by {admin}."
    )


@orgs.command("list")
@json_option
@click.pass_obj
def list_orgs(invocation: Invocation, as_json: bool) -> None:
    """List the orgs."""
    found = ask(invocation, _all_orgs)
    if as_json:
        show_json(found)
        return
    show_table(
        [
            Column("Name"),
            Column("Tier"),
            Column("Seats", number=True),
            Column("Default payer"),
            Column("Created"),
            Column("Id"),
        ],
        [
            [
                org.name,
                org.tier,
                str(org.seats),
                "yes" if org.default_payer else "no",
                moment(org.created_at_ms),
                org.id,
            ]
            for org in found
        ],
        empty="There are no orgs yet: turnpike orgs add NAME --tier TIER --admin USER",
    )


@orgs.command()
@click.argument("name")
@click.argument("tier")
@json_option
@click.pass_obj
def tier(invocation: Invocation, name: str, tier: str, as_json: bool) -> None:
    """Put the org NAME on TIER, at once."""

    async def work(client: AdminClient) -> Org:
        path = f"/api/orgs/{quote(name, safe='')}/tier"
        return await client.send("PUT", path, Org, body=NewTier(tier=tier))

    _show_one(ask(invocation, work), as_json, "{0.name} is on tier {0.tier} now.")


@orgs.command("default-payer")
@click.argument("name")
@click.argument("state", type=click.Choice(["on", "off"]))
@json_option
@click.pass_obj
def default_payer(invocation: Invocation, name: str, state: str, as_json: bool) -> None:
    """Let the org NAME pay for its members' calls that name no payer, or no longer."""

    async def work(client: AdminClient) -> Org:
        path = f"/api/orgs/{quote(name, safe='')}/default-payer"
        return await client.send("PUT", path, Org, body=DefaultPayer(state == "on"))

    pays = "pays" if state == "on" else "no longer pays"
    _show_one(
        ask(invocation, work), as_json, f"{{0.name}} {pays} for members' calls that name no payer."
    )


async def _all_orgs(client: AdminClient) -> list[Org]:
    return await client.every("/api/orgs", OrgList)


def _show_one(org: Org, as_json: bool, sentence: str) -> None:
    if as_json:
        show_json(org)
    else:
        click.echo(sentence.format(org))
