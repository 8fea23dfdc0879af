"""``turnpike provider-keys``: set, list, remove. A key is read from stdin, never from the
command line, which other users of the machine can see."""

import sys
from urllib.parse import quote

import rich_click as click

from app.api.admin.provider_keys_wire import NewProviderKey, ProviderKeyList
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table
from app.identity.provider_key_rows import ProviderKeyInfo

_INPUT_LENGTH_MAX = 8192

_user = click.option("--user", metavar="NAME", help="The user whose key it is.")
_org = click.option("--org", metavar="ORG", help="The org whose key it is.")


@click.group("provider-keys")
def provider_keys() -> None:
    """Users' and orgs' own keys at providers: calls with them are paid there, and not here."""


@provider_keys.command("set")
@click.argument("provider")
@_user
@_org
@click.option(
    "--paid-fallback",
    is_flag=True,
    help="When the key fails, let the call go on at the payer's expense.",
)
@json_option
@click.pass_obj
def set_key(
    invocation: Invocation,
    provider: str,
    user: str | None,
    org: str | None,
    paid_fallback: bool,
    as_json: bool,
) -> None:
    """Set the key at PROVIDER; it is asked for, or read from stdin when piped."""
    path, query = _where(user, org)
    asked = NewProviderKey(secret=_read_secret(), paid_fallback=paid_fallback)

    async def work(client: AdminClient) -> ProviderKeyInfo:
        place = f"{path}/{quote(provider, safe='')}"
        return await client.send("PUT", place, ProviderKeyInfo, body=asked, query=query)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
    else:
        then = "may be paid here instead" if found.paid_fallback else "is not tried at our expense"
        click.echo(
            f"{org or user} has a key for {found.provider} now. A call with it that fails {then}."
        )


@provider_keys.command("list")
@_user
@_org
@json_option
@click.pass_obj
def list_keys(invocation: Invocation, user: str | None, org: str | None, as_json: bool) -> None:
    """List the keys, without the keys themselves."""
    path, query = _where(user, org)

    async def work(client: AdminClient) -> list[ProviderKeyInfo]:
        return (await client.send("GET", path, ProviderKeyList, query=query)).data

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    titles = ("Provider", "Ends in", "Paid fallback", "Created", "Last used", "Last failed", "Why")
    show_table(
        [Column(title) for title in titles],
        [
            [
                key.provider,
                key.hint or "-",
                "yes" if key.paid_fallback else "no",
                moment(key.created_at_ms),
                moment(key.last_used_at_ms),
                moment(key.last_failed_at_ms),
                key.last_failure or "-",
            ]
            for key in found
        ],
        empty="There are no keys yet: turnpike provider-keys set PROVIDER --user NAME",
    )


@provider_keys.command()
@click.argument("provider")
@_user
@_org
@json_option
@click.pass_obj
def remove(
    invocation: Invocation, provider: str, user: str | None, org: str | None, as_json: bool
) -> None:
    """End the key at PROVIDER, at once."""
    path, query = _where(user, org)

    async def work(client: AdminClient) -> ProviderKeyInfo:
        place = f"{path}/{quote(provider, safe='')}"
        return await client.send("DELETE", place, ProviderKeyInfo, query=query)

    gone = ask(invocation, work)
    if as_json:
        show_json(gone)
    else:
        click.echo(f"{org or user} has no key for {gone.provider} any more.")


def _where(user: str | None, org: str | None) -> tuple[str, dict[str, str]]:
    """The path and the query of a user's or an org's keys. Raises UsageError."""
    if (user is None) == (org is None):
        raise click.UsageError("Say whose key it is: --user NAME or --org ORG.")
    if org is not None:
        return f"/api/orgs/{quote(org, safe='')}/provider-keys", {}
    return "/api/provider-keys", {"user": user or ""}


def _read_secret() -> str:
    """The key as it was typed or piped, without the line's end."""
    if sys.stdin.isatty():
        typed: str = click.prompt("Key", hide_input=True, err=True)
        return typed.strip()
    read = sys.stdin.read(_INPUT_LENGTH_MAX).strip()
    if not read:
        raise click.UsageError("No key came in: pipe it to this command, or type it when asked.")
    return read
