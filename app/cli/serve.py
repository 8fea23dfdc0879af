"""``turnpike serve``: run the appliance until it is told to stop."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from app.cli.banner import print_banner, watch_loading
from app.cli.interpreter import let_go_less, open_more_files
from app.cli.invocation import Invocation
from app.cli.logs import configure_logging
from app.config import Config, Server
from app.errors import ConfigError, TurnpikeError
from app.storage.lock import SERVER_FILE

if TYPE_CHECKING:
    from app.reload import Reloader

log = logging.getLogger("turnpike.serve")
KEEP_ALIVE_SECONDS = 75
# The drain's own end, after which nothing is waited for any more.
_AFTER_DRAIN_SECONDS = 8
_TICK_SECONDS = 1.0


@click.command()
@click.pass_obj
def serve(invocation: Invocation) -> None:
    """Run the appliance until SIGTERM or Ctrl-C, then let the running calls end."""
    config = invocation.config()
    configure_logging(config.server.log_level)
    open_more_files()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, invocation.config))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


async def _serve(config: Config, reread: Callable[[], Config]) -> None:
    import uvicorn

    from app.api.connection import bounded_http
    from app.boot import open_appliance
    from app.identity.bootstrap import bootstrap_owner

    class Listener(uvicorn.Server):
        """uvicorn without its signal handling: a drained stop exits with 0 here."""

        told_to_stop = asyncio.Event()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def main_loop(self) -> None:
            """Woken to end, and once a second for the date's header: uvicorn's own looks ten times
            a second whether it is to end, which takes a five-hundredth of a core for ever."""
            while not await self.on_tick(0):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.told_to_stop.wait(), _TICK_SECONDS)

    async with open_appliance(config, serving=True, reread=reread) as appliance:
        listening = bind(config.server)
        server = Listener(
            uvicorn.Config(
                appliance.asgi,
                http=bounded_http(config.server),
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(config.server.drain_seconds_max)
                + _AFTER_DRAIN_SECONDS,
            )
        )
        drains: set[asyncio.Task[int]] = set()

        def stop() -> None:
            if drains:  # asked twice: no more waiting
                server.force_exit = True
            server.should_exit = True
            server.told_to_stop.set()
            drains.add(
                asyncio.create_task(appliance.gateway.drain(config.server.drain_seconds_max))
            )

        _on_signals(stop)
        _on_hangup(appliance.reloader)
        # Only now can nothing go wrong that would lose the one moment the key is shown.
        services = appliance.services
        first_key = await bootstrap_owner(services.users, services.keys)
        base_url = url_of(listening, config.server.host)
        server_file = config.data_dir() / SERVER_FILE
        _write_server_file(server_file, base_url, appliance.admin_token)
        let_go_less()
        models = list(services.catalog.snapshot.models)
        print_banner(base_url, first_key, models, config.data_dir())
        loading = asyncio.create_task(watch_loading(appliance.runtime))
        try:
            await server.serve(sockets=[listening])
        finally:
            loading.cancel()
            server_file.unlink(missing_ok=True)
            if drains:
                await asyncio.wait(drains)


def bind(server: Server) -> socket.socket:
    """A socket bound to the configured address. Raises ConfigError that says what to change."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":  # there it would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((server.host, server.port))
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"server.port: cannot listen on {server.host}:{server.port}:"
            f" {error.strerror or error}. Choose another with `port` under [server]; 0 takes a"
            " free one."
        ) from error
    return listening


def url_of(listening: socket.socket, host: str) -> str:
    """The base URL that a client on this machine uses."""
    port = listening.getsockname()[1]
    if host in {"0.0.0.0", "::", ""}:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _write_server_file(path: Path, base_url: str, token: str) -> None:
    """Tell the command line where this server is and how to act as its operator (mode 0600)."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), "base_url": base_url, "token": token}, file)


def _on_hangup(reloader: "Reloader") -> None:
    """SIGHUP, where there is one, reads the configuration again."""
    running: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        try:
            await reloader.reload()
        except TurnpikeError as error:
            log.error("the configuration was not reloaded: %s", error.message)

    def begin() -> None:
        task = asyncio.create_task(reload())
        running.add(task)
        task.add_done_callback(running.discard)

    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, begin)


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
