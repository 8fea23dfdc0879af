"""``turnpike reload``."""

import rich_click as click

from app.api.admin.wire import Reloaded
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import json_option, show_json


@click.command()
@json_option
@click.pass_obj
def reload(invocation: Invocation, as_json: bool) -> None:
    """Have the running server read its configuration file again, without dropping a call."""

    async def work(client: AdminClient) -> Reloaded:
        return await client.send("POST", "/api/reload", Reloaded)

    done = ask(invocation, work)
    if as_json:
        show_json(done)
        return
    click.echo(f"changed: {', '.join(done.changed) or 'nothing'}")
    if done.needs_restart:
        click.echo(f"changed, but only a restart takes it over: {', '.join(done.needs_restart)}")
