"""``turnpike restart``."""

import asyncio
import os
import time
from pathlib import Path

import rich_click as click

from app.api.admin.wire import Restarting
from app.cli.client import AdminClient, CommandFailed, RunningServer, ask, server_of
from app.cli.health import Health, health_of
from app.cli.invocation import Invocation
from app.cli.output import json_option, show_json

# Stopping and starting, besides what running calls are given to end.
_AROUND_SECONDS = 120.0
_LOOK_SECONDS = 0.1


@click.command()
@json_option
@click.pass_obj
def restart(invocation: Invocation, as_json: bool) -> None:
    """Start the running server anew, perhaps a newer one, without refusing a connection.

    Running calls end first; new ones wait until the new program serves them. A configuration or a
    program that cannot start is found out before anything stops.
    """

    async def work(client: AdminClient) -> Restarting:
        return await client.send("POST", "/api/restart", Restarting)

    began = time.monotonic()
    data_dir = invocation.config().data_dir()
    before = server_of(data_dir)
    begun = ask(invocation, work)
    give_up_at = began + begun.drain_seconds_max + _AROUND_SECONDS
    asyncio.run(_until_served(data_dir, before, begun.pid, give_up_at))
    took = round(time.monotonic() - began, 1)
    if as_json:
        show_json({"pid": begun.pid, "seconds": took})
        return
    click.echo(f"restarted in {took} seconds (process {begun.pid})")


async def _until_served(
    data_dir: Path, before: RunningServer | None, pid: int, give_up_at: float
) -> None:
    """Wait for the new program. Raises CommandFailed."""
    while time.monotonic() < give_up_at:
        server = server_of(data_dir)
        # The token is a new one in every run.
        if server is not None and (before is None or server.token != before.token):
            if health_of(server.base_url) is Health.READY:
                return
        elif not _exists(pid):
            raise CommandFailed(
                "The server stopped and did not come back. Its log says why; start it again with"
                " `systemctl start turnpike` or `turnpike serve`."
            )
        await asyncio.sleep(_LOOK_SECONDS)
    raise CommandFailed(
        "The new program does not serve calls yet. Look at the server's log, and ask again with"
        " `turnpike health`."
    )


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but there
        return True
    return True
