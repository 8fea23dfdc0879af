"""``turnpike secrets``: new, rotate, forget. The master key over users' own provider keys."""

import rich_click as click

from app.api.admin.provider_keys_wire import Forgotten
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import json_option, show_json, show_secret
from app.identity.provider_keys import Rotation
from app.identity.sealing import new_master_key


@click.group()
def secrets() -> None:
    """The master key that users' and orgs' own provider keys are sealed under."""


@secrets.command()
def new() -> None:
    """Print a fresh master key, for `secrets.master_key`. Nothing is changed by it."""
    show_secret(
        "Master key",
        new_master_key(),
        "The line below is a new master key. Keep it where only the server's account can read it,\n"
        "and a copy apart from the backups: without it, what it sealed is lost.",
    )


@secrets.command()
@json_option
@click.pass_obj
def rotate(invocation: Invocation, as_json: bool) -> None:
    """Seal all provider keys under the configured master key, or under a new one in master.key.

    With `secrets.master_key`: first put the new key there and the old one into
    `secrets.old_master_keys`, and start the server anew. Safe to interrupt and to repeat.
    """

    async def work(client: AdminClient) -> Rotation:
        return await client.send("POST", "/api/secrets/rotate", Rotation)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    click.echo(f"Sealed {found.rewrapped} provider keys under the master key {found.kid}.")
    if found.unreadable:
        click.echo(
            f"{found.unreadable} do not open with any master key here: turnpike secrets forget"
            " removes them.",
            err=True,
        )


@secrets.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def forget(invocation: Invocation, yes: bool, as_json: bool) -> None:
    """Remove the provider keys that no master key here opens: the way on when one is lost."""
    if not yes:
        click.confirm(
            "Provider keys sealed under a master key that is not here will be gone for good."
            " Go on?",
            abort=True,
            err=True,
        )

    async def work(client: AdminClient) -> Forgotten:
        return await client.send("POST", "/api/secrets/forget", Forgotten)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
    else:
        click.echo(f"Removed {found.removed} provider keys.")
