"""``turnpike orgs switches``, ``switch-off`` and ``switch-on``."""

from urllib.parse import quote

import rich_click as click

from app.api.admin.orgs_wire import NewSwitch, SwitchList
from app.billing.switches import SwitchedOff, SwitchKind
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table

_kind = click.argument("kind", type=click.Choice(["provider", "model"]))


@click.command()
@click.argument("org")
@json_option
@click.pass_obj
def switches(invocation: Invocation, org: str, as_json: bool) -> None:
    """List the providers and models that ORG does not pay for."""

    async def work(client: AdminClient) -> list[SwitchedOff]:
        return (await client.send("GET", _path(org), SwitchList)).data

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    show_table(
        [Column(title) for title in ("Kind", "Name", "Reason", "By", "Since")],
        [
            [each.kind, each.name, each.reason, each.set_by, moment(each.set_at_ms)]
            for each in found
        ],
        empty="Nothing is switched off: turnpike orgs switch-off ORG provider NAME --reason WHY",
    )


@click.command("switch-off")
@click.argument("org")
@_kind
@click.argument("name")
@click.option("--reason", required=True, help="What members are told whose calls are refused.")
@json_option
@click.pass_obj
def switch_off(
    invocation: Invocation, org: str, kind: SwitchKind, name: str, reason: str, as_json: bool
) -> None:
    """Let ORG no longer pay for the provider or model NAME."""
    asked = NewSwitch(kind=kind, name=name, reason=reason)

    async def work(client: AdminClient) -> SwitchedOff:
        return await client.send("PUT", _path(org), SwitchedOff, body=asked)

    _show_one(ask(invocation, work), as_json, f"{org} does not pay for {{0.kind}} {{0.name}} now.")


@click.command("switch-on")
@click.argument("org")
@_kind
@click.argument("name")
@json_option
@click.pass_obj
def switch_on(invocation: Invocation, org: str, kind: SwitchKind, name: str, as_json: bool) -> None:
    """Let ORG pay for the provider or model NAME again."""

    async def work(client: AdminClient) -> SwitchedOff:
        query = {"kind": kind, "name": name}
        return await client.send("DELETE", _path(org), SwitchedOff, query=query)

    _show_one(ask(invocation, work), as_json, f"{org} pays for {{0.kind}} {{0.name}} again.")


def _path(org: str) -> str:
    return f"/api/orgs/{quote(org, safe='')}/switches"


def _show_one(switched: SwitchedOff, as_json: bool, sentence: str) -> None:
    if as_json:
        show_json(switched)
    else:
        click.echo(sentence.format(switched))
