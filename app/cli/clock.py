"""``turnpike clock``: show, confirm."""

import rich_click as click

from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import json_option, moment, show_json
from app.ledger.time import ClockState


@click.group()
def clock() -> None:
    """The ledger's time, which a clock that jumps does not move at once."""


@clock.command()
@json_option
@click.pass_obj
def show(invocation: Invocation, as_json: bool) -> None:
    """Show the ledger's time beside the machine's clock."""

    async def work(client: AdminClient) -> ClockState:
        return await client.send("GET", "/api/clock", ClockState)

    _show(ask(invocation, work), as_json)


@clock.command()
@json_option
@click.pass_obj
def confirm(invocation: Invocation, as_json: bool) -> None:
    """Say that the machine's clock is right, after it jumped."""

    async def work(client: AdminClient) -> ClockState:
        return await client.send("POST", "/api/clock/confirm", ClockState)

    _show(ask(invocation, work), as_json)


def _show(state: ClockState, as_json: bool) -> None:
    if as_json:
        show_json(state)
        return
    click.echo(f"Ledger time     {moment(state.ledger_ms)}")
    click.echo(f"Machine's clock {moment(state.clock_ms)}")
    if state.suspended:
        since = moment(state.suspended_since_ms)
        click.echo(f"In doubt since {since}: the clock has jumped. {state.advice}")
    elif state.lead_ms:
        click.echo("Ledger time is ahead: it never goes back, and works the lead off slowly.")
    else:
        click.echo("They agree.")
