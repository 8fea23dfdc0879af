"""``turnpike confine``, ``turnpike preferred`` and ``turnpike providers``."""

import rich_click as click

from app.api.admin.routing_wire import (
    ConfinementList,
    NewConfinement,
    NewPreferredOrder,
    OfferLine,
    ProviderLine,
    ProviderList,
)
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table
from app.identity.confined_subjects import SubjectKind
from app.identity.confinement import Confinement
from app.identity.key_format import public_part
from app.identity.preferred import PreferredOrder


@click.command()
@click.option("--key", metavar="KEY", help="A key (tp_...).")
@click.option("--user", metavar="NAME", help="A user: every key of theirs.")
@click.option("--org", metavar="NAME", help="An org: every call that it pays for.")
@click.option("--off", is_flag=True, help="Lift the confinement.")
@click.argument("labels", nargs=-1, metavar="[LABEL]...")
@json_option
@click.pass_obj
def confine(  # one flag for each kind of subject
    invocation: Invocation,
    key: str | None,
    user: str | None,
    org: str | None,
    off: bool,
    labels: tuple[str, ...],
    as_json: bool,
) -> None:
    """Let calls go only to offers with one of the LABELs: `local`, say, for this machine alone.

    Without any option, list who is confined. A call has to fit the confinements of its key, its
    user and the org that pays for it, all of them; nothing in a request can change that.
    """
    named: list[tuple[SubjectKind, str | None]] = [("key", key), ("user", user), ("org", org)]
    given = [(kind, subject) for kind, subject in named if subject is not None]
    if not given and not labels and not off:
        _list(invocation, as_json)
        return
    if len(given) != 1:
        raise click.UsageError("Give one of --key, --user and --org.")
    if off == bool(labels):
        raise click.UsageError("Give labels, or --off to lift the confinement.")
    kind, subject = given[0]
    subject = public_part(subject) if kind == "key" else subject  # no secret in an address

    async def work(client: AdminClient) -> Confinement:
        if off:
            query = {"kind": kind, "subject": subject}
            return await client.send("DELETE", "/api/confinements", Confinement, query=query)
        asked = NewConfinement(kind, subject, list(labels))
        return await client.send("PUT", "/api/confinements", Confinement, body=asked)

    found = ask(invocation, work)
    if as_json:
        show_json(found)
    elif off:
        click.echo(f"{found.kind} {found.subject}: may go anywhere again.")
    else:
        click.echo(f"{found.kind} {found.subject}: only to {' or '.join(found.labels)} now.")


def _list(invocation: Invocation, as_json: bool) -> None:
    async def work(client: AdminClient) -> list[Confinement]:
        return (await client.send("GET", "/api/confinements", ConfinementList)).data

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    show_table(
        [Column(title) for title in ("Kind", "Who", "Only to", "By", "Since")],
        [
            [each.kind, each.subject, " ".join(each.labels), each.set_by, moment(each.set_at_ms)]
            for each in found
        ],
        empty="Nobody is confined: turnpike confine --user NAME local",
    )


@click.group()
def preferred() -> None:
    """Users' own order of providers, for models asked for as `NAME:preferred`."""


@preferred.command("set")
@click.argument("user")
@click.argument("providers", nargs=-1, required=True, metavar="PROVIDER...")
@json_option
@click.pass_obj
def set_preferred(
    invocation: Invocation, user: str, providers: tuple[str, ...], as_json: bool
) -> None:
    """Let USER's calls prefer these PROVIDERs, best first."""
    asked = NewPreferredOrder(list(providers), user)

    async def work(client: AdminClient) -> PreferredOrder:
        return await client.send("PUT", "/api/preferred", PreferredOrder, body=asked)

    _show_order(ask(invocation, work), as_json)


@preferred.command("show")
@click.argument("user")
@json_option
@click.pass_obj
def show_preferred(invocation: Invocation, user: str, as_json: bool) -> None:
    """Show USER's order."""

    async def work(client: AdminClient) -> PreferredOrder:
        return await client.send("GET", "/api/preferred", PreferredOrder, query={"user": user})

    _show_order(ask(invocation, work), as_json)


@preferred.command("clear")
@click.argument("user")
@json_option
@click.pass_obj
def clear_preferred(invocation: Invocation, user: str, as_json: bool) -> None:
    """Forget USER's order; the configuration's counts again."""

    async def work(client: AdminClient) -> PreferredOrder:
        return await client.send("DELETE", "/api/preferred", PreferredOrder, query={"user": user})

    _show_order(ask(invocation, work), as_json)


def _show_order(order: PreferredOrder, as_json: bool) -> None:
    if as_json:
        show_json(order)
    elif order.providers:
        click.echo(f"{order.user} prefers {', '.join(order.providers)}.")
    else:
        click.echo(f"{order.user} has no order of providers.")


@click.command()
@click.argument("provider", required=False)
@json_option
@click.pass_obj
def providers(invocation: Invocation, provider: str | None, as_json: bool) -> None:
    """Show how providers do: keys, circuits, speed, last probe; all of them, or one."""

    async def work(client: AdminClient) -> list[ProviderLine]:
        query = {"provider": provider} if provider else None
        return (await client.send("GET", "/api/providers", ProviderList, query=query)).data

    found = ask(invocation, work)
    if as_json:
        show_json(found)
        return
    numbers = {"First token", "Tokens/s"}
    titles = ("Provider", "Keys", "Model", "Circuit", "First token", "Tokens/s", "Last probe")
    show_table(
        [Column(title, number=title in numbers) for title in titles],
        [row for line in found for row in _rows(line)],
        empty="There are no providers.",
    )


def _rows(line: ProviderLine) -> list[list[str]]:
    keys = ", ".join(f"{key.name} {key.state}" for key in line.keys) or "-"
    rows = [[line.provider, keys, *_cells(offer)] for offer in line.offers]
    return rows or [[line.provider, keys, "-", "-", "-", "-", "-"]]


def _cells(offer: OfferLine) -> list[str]:
    first, speed, probe = offer.first_token_ms, offer.tokens_per_second, offer.probe
    probed = "never"
    if probe is not None:
        probed = f"{moment(probe.checked_at_ms)} {probe.reason or probe.status}"
    return [
        offer.model,
        offer.circuit,
        "-" if first is None else f"{first:.0f} ms",
        "-" if speed is None else f"{speed:.1f}",
        probed,
    ]
