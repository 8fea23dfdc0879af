"""``turnpike keys``: create, list, revoke."""

from urllib.parse import quote

import rich_click as click

from app.api.admin.wire import CreatedKey, KeyList, NewKey
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_secret, show_table
from app.identity.key_format import public_part
from app.identity.keys import KeyInfo


@click.group()
def keys() -> None:
    """The API keys, which are shown once."""


@keys.command()
@click.option("--user", required=True, help="Whose key it will be.")
@click.option("--name", default="default", show_default=True, help="What you call it.")
@json_option
@click.pass_obj
def create(invocation: Invocation, user: str, name: str, as_json: bool) -> None:
    """Make a key. When piped, the key alone is printed."""
    asked = NewKey(user=user, name=name)

    async def work(client: AdminClient) -> CreatedKey:
        return await client.send("POST", "/api/keys", CreatedKey, body=asked)

    created = ask(invocation, work)
    if as_json:
        show_json(created)
        return
    show_secret(
        f"Key of {created.user_name}",
        created.key,
        "The line below is the key. It is shown only this once: store it now.\n"
        f"To end it: turnpike keys revoke tp_{created.prefix}",
    )


@keys.command("list")
@json_option
@click.pass_obj
def list_keys(invocation: Invocation, as_json: bool) -> None:
    """List the keys, without their secrets."""
    found = ask(invocation, _all_keys)
    if as_json:
        show_json(found)
        return
    titles = ("Key", "User", "Name", "Created", "Last used", "Revoked")
    show_table(
        [Column(title) for title in titles],
        [
            [
                f"tp_{key.prefix}",
                key.user_name,
                key.name,
                moment(key.created_at_ms),
                moment(key.last_used_at_ms),
                moment(key.revoked_at_ms),
            ]
            for key in found
        ],
        empty="There are no keys yet: turnpike keys create --user NAME",
    )


@keys.command()
@click.argument("key")
@json_option
@click.pass_obj
def revoke(invocation: Invocation, key: str, as_json: bool) -> None:
    """End KEY at once: its id, its public part (tp_...), or the key itself."""

    async def work(client: AdminClient) -> KeyInfo:
        path = f"/api/keys/{quote(public_part(key), safe='')}"  # never a secret in a path
        return await client.send("DELETE", path, KeyInfo)

    revoked = ask(invocation, work)
    if as_json:
        show_json(revoked)
    else:
        click.echo(f"Revoked tp_{revoked.prefix}, {revoked.name} of {revoked.user_name}.")


async def _all_keys(client: AdminClient) -> list[KeyInfo]:
    return await client.every("/api/keys", KeyList)
