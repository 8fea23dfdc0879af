"""uvicorn's server with a stop of our own, and with a way to leave its sockets to a successor.

While one program takes another's place no client may notice: new connections wait in the kernel's
queue of the listening socket, which stays open. An idle connection is kept open too, with its
descriptor: closed, it would lose the request that its client may be sending at that moment.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import uvicorn
from litestar.types import ASGIApp

from app.api.connection import BoundedHttp, bounded_http
from app.cli.sockets import BACKLOG
from app.config import Server

log = logging.getLogger("turnpike.serve")
KEEP_ALIVE_SECONDS = 75
# The drain's own end, after which nothing is waited for any more.
_AFTER_DRAIN_SECONDS = 8
_TICK_SECONDS = 1.0
_LOOK_SECONDS = 0.02
# For the clients of calls that are broken off to be told so.
_LAST_WORDS_SECONDS = 1.0


def settings(server: Server, asgi: ASGIApp) -> uvicorn.Config:
    """How uvicorn is set."""
    return uvicorn.Config(
        asgi,
        http=bounded_http(server),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(server.drain_seconds_max) + _AFTER_DRAIN_SECONDS,
    )


class Listener(uvicorn.Server):
    """One run of the server, from the first call that it takes to the last one's end.

    It has no signal handling: a drained stop exits with 0 here. ``started_up`` is called when calls
    are served, ``drain`` when from then on none may begin; it gets the seconds that are left.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        kept: Sequence[socket.socket],
        started_up: Callable[[], None],
        drain: Callable[[float], None],
    ) -> None:
        super().__init__(config)
        self._kept = list(kept)
        self._started_up = started_up
        self._drain = drain
        self._told_to_stop = asyncio.Event()
        self._leaving: float | None = None
        self.left: list[socket.socket] = []
        """What a successor gets, once this has ended: empty unless it was told to leave it."""

    def stop(self, seconds_max: float) -> None:
        """End, with so long for the running calls; asked twice, at once. What they delivered until
        then is settled all the same."""
        again = self.should_exit and self._leaving is None
        self._leaving = None
        self.should_exit = True
        self._told_to_stop.set()
        self._drain(0 if again else seconds_max)
        if again:
            asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._wait_no_more)

    def _wait_no_more(self) -> None:
        self.force_exit = True

    def leave(self, seconds_max: float) -> bool:
        """End as with ``stop``, but for a successor. Whether that can still be done."""
        if self.should_exit:
            return False
        self._leaving = asyncio.get_running_loop().time() + seconds_max
        self.should_exit = True
        self._told_to_stop.set()
        return True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        kept, self._kept = self._kept, []
        for each in kept:
            await self._take_over(each)
        self._started_up()

    async def main_loop(self) -> None:
        """Woken to end, and once a second for the date's header: uvicorn's own looks ten times
        a second whether it is to end, which takes a five-hundredth of a core for ever."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_stop.wait(), _TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._leaving is not None:
            await self._keep(sockets or [])
        await super().shutdown(sockets)
        if self._leaving is None:  # told to stop in the middle of it
            for each in self.left:
                each.close()
            self.left.clear()

    async def _take_over(self, connected: socket.socket) -> None:
        """Go on with a connection of the program before."""

        bounded = cast(type[BoundedHttp], self.config.http_protocol_class)

        def protocol() -> asyncio.Protocol:
            http = bounded(
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )
            http.is_kept = True
            return http

        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connected)
        except OSError:  # its client has left meanwhile
            connected.close()

    async def _keep(self, sockets: Sequence[socket.socket]) -> None:
        """Take no more requests, and keep each connection once its answer is out."""
        self.left = [each.dup() for each in sockets]
        for server in self.servers:
            server.close()
        await asyncio.sleep(_LOOK_SECONDS)  # what was accepted already is a connection by then
        loop = asyncio.get_running_loop()
        while self._leaving is not None and loop.time() < self._leaving:
            for each in list(self.server_state.connections):
                if isinstance(each, BoundedHttp) and each.is_idle():
                    self.left.append(each.let_go())
            if not self.server_state.connections:
                break
            await asyncio.sleep(_LOOK_SECONDS)
        if self._leaving is not None:
            kept, late = len(self.left) - len(sockets), len(self.server_state.connections)
            log.info("%d connections are kept, %d are not idle", kept, late)
            self._drain(max(self._leaving - loop.time(), 0))
