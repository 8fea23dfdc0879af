"""``turnpike serve``: run the appliance until it is told to stop."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from app.cli.banner import print_banner, watch_loading
from app.cli.handover import HandOver, ignore_signals, take_place, this_program
from app.cli.interpreter import let_go_less, open_more_files
from app.cli.invocation import Invocation
from app.cli.notify import Notifier, goes_to_journal
from app.cli.signals import on_signal
from app.cli.sockets import BACKLOG, Inherited, inherited, listen, url_of
from app.config import Config
from app.logs.output import LogOutput, log_what_nobody_caught
from app.storage.lock import SERVER_FILE
from plugins.tasks import CONVERSATIONAL

if TYPE_CHECKING:
    from app.boot import Appliance
    from app.cli.successor import Successor

log = logging.getLogger("turnpike.serve")


@dataclass
class _Start:
    """What a run was started with."""

    reread: Callable[[], Config]
    logs: LogOutput
    notifier: Notifier
    before: Inherited
    program: list[str]


@click.command()
@click.option("--check", is_flag=True, help="Only say whether it could start; nothing is started.")
@click.pass_obj
def serve(invocation: Invocation, check: bool) -> None:
    """Run the appliance until SIGTERM or Ctrl-C, then let the running calls end.

    SIGHUP reads the configuration again, SIGUSR2 starts the program anew without refusing a
    connection (`turnpike reload`, `turnpike restart`).
    """
    config = invocation.config()
    if check:
        from app.cli.start_check import check_start

        check_start(config)
        click.echo("It can start with this configuration.")
        return
    # Before anything is started that would inherit them.
    start = _Start(
        reread=invocation.config,
        logs=LogOutput(),
        notifier=Notifier(os.environ),
        before=inherited(os.environ),
        program=this_program(),
    )
    ignore_signals()
    start.logs.take_over(config)
    log_what_nobody_caught()
    open_more_files()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        handed = runner.run(_serve(config, start))
    if handed is not None:
        take_place(handed)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


async def _serve(config: Config, start: _Start) -> HandOver | None:
    """The program to become, if that is how it ended."""
    from app.boot import open_appliance
    from app.cli.successor import Successor

    successor = Successor(start.program, config, start.reread)
    async with open_appliance(
        config,
        serving=True,
        reread=start.reread,
        logs=start.logs,
        restart=successor.begin,
    ) as appliance:
        return await _run(config, start, appliance, successor)


async def _run(
    config: Config, start: _Start, appliance: "Appliance", successor: "Successor"
) -> HandOver | None:
    from app.cli.listener import Listener, settings
    from app.identity.bootstrap import bootstrap_owner

    notifier, seconds_max = start.notifier, config.server.drain_seconds_max
    listening = listen(config.server, start.before)
    base_url = url_of(listening.sockets)
    status = f"serves {base_url}/v1"
    drains: set[asyncio.Task[int]] = set()

    def drain(seconds_left: float) -> None:
        drains.add(asyncio.create_task(appliance.gateway.drain(seconds_left)))

    def started_up() -> None:
        notifier.ready(status, handed_over=start.before.handed_over is not None)

    server = Listener(
        settings(config.server, appliance.asgi), start.before.connected, started_up, drain
    )

    def stop() -> None:
        notifier.stopping(seconds_max)
        server.stop(seconds_max)

    successor.attach(server, listening, notifier)
    _on_signals(stop)
    appliance.reloader.around = lambda: notifier.reloading(status)
    on_signal("SIGHUP", appliance.reloader.reload, "the configuration was not reloaded")
    on_signal("SIGUSR2", successor.begin, "the server was not restarted")
    # Only now can nothing go wrong that would lose the one moment the key is shown.
    services = appliance.services
    in_journal = goes_to_journal(os.environ)
    first_key = await bootstrap_owner(services.users, services.keys, make_key=not in_journal)
    server_file = config.data_dir() / SERVER_FILE
    _write_server_file(server_file, base_url, appliance.admin_token)
    let_go_less()
    models = services.catalog.snapshot.models
    chat_models = (
        model
        for model, offers in models.items()
        if any(CONVERSATIONAL in each.tasks for each in offers)
    )
    for each in listening.sockets:
        each.listen(BACKLOG)  # whoever reads the banner may connect
    print_banner(
        *(base_url, first_key, list(models), config.data_dir()),
        chat_model=next(chat_models, None),
        absent=[each.model for each in appliance.runtime.status() if each.state == "absent"],
        in_journal=in_journal,
    )
    beside = [
        asyncio.create_task(watch_loading(appliance.runtime)),
        asyncio.create_task(notifier.keep_watchdog(appliance.can_write)),
    ]
    try:
        await server.serve(sockets=listening.sockets)
    finally:
        for task in beside:
            task.cancel()
        server_file.unlink(missing_ok=True)
        if drains:
            await asyncio.wait(drains)
    return successor.handed()


def _write_server_file(path: Path, base_url: str, token: str) -> None:
    """Tell the command line where this server is and how to act as its operator (mode 0600)."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), "base_url": base_url, "token": token}, file)


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
