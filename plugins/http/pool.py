"""Connections to one origin that are kept between calls.

There is no fixed number of them, so none can run out: a call that finds no idle one opens its own.
The one that was freed last is used first, so that the others grow old and go.
"""

import asyncio
import ssl
from collections.abc import Sequence

from plugins.contract import AdapterError, FailureKind
from plugins.http.connection import Connection, broke
from plugins.http.dial import Address, dial, resolve
from plugins.http.proxy import Origin, Proxy

# Shorter than the keep-alive of the servers that providers run (uvicorn: 5 s), so that a request is
# not sent into a connection that the other side is closing.
IDLE_S_MAX = 4.0
IDLE_MAX = 512
SWEEP_S = 1.0
# How long the addresses of a name are used without asking again.
NAME_S_MAX = 5.0


class Pool:
    """``take`` an idle connection or ``open`` one; it comes back by itself."""

    def __init__(self, origin: Origin, proxy: Proxy | None, context: ssl.SSLContext | None) -> None:
        """``context`` is for https."""
        self.origin = origin
        self.proxy = proxy
        self._context = context
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening: set[asyncio.Timeout] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._addresses: Sequence[Address] = ()
        self._addresses_until = 0.0
        self._closed = False

    def take(self) -> Connection | None:
        """An idle connection that a request may be written to at once, or None."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            too_old = connection.loop.time() - connection.free_since > IDLE_S_MAX
            if not too_old and connection.is_fresh():
                return connection
            connection.abort()
        return None

    async def open(self, *, by: float, connect_s_max: float) -> Connection:
        """A new connection. Raises AdapterError (CONNECT, or TIMEOUT where ``by`` comes first)."""
        self._check_open()
        loop = asyncio.get_running_loop()
        limit = loop.time() + connect_s_max
        timeout = asyncio.timeout_at(min(by, limit))
        self._opening.add(timeout)
        try:
            async with timeout:
                connection = await self._dial(loop)
        except (OSError, ValueError) as error:
            self._addresses_until = 0.0
            if self._closed:
                raise stopping() from error
            if timeout.expired() and by <= limit:
                raise AdapterError(FailureKind.TIMEOUT, "the provider took too long") from error
            detail = f"{type(error).__name__}: {error}"
            raise AdapterError(
                FailureKind.CONNECT, "the provider could not be reached", detail=detail
            ) from error
        finally:
            self._opening.discard(timeout)
        if self._closed or connection.closed:
            connection.abort()
            self._check_open()
            raise broke(None)
        self._all.add(connection)
        return connection

    def close(self) -> None:
        """Close every connection; exchanges in progress fail."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for timeout in self._opening:
            if not timeout.expired():
                timeout.reschedule(0.0)
        for connection in tuple(self._all):
            connection.stop(stopping())
        self._idle.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise stopping()

    async def _dial(self, loop: asyncio.AbstractEventLoop) -> Connection:
        if not self._addresses or loop.time() > self._addresses_until:
            there = self.proxy or self.origin
            self._addresses = await resolve(there.host, there.port)
            self._addresses_until = loop.time() + NAME_S_MAX
        return await dial(
            self.origin,
            self._addresses,
            self._context,
            lambda loop, raw: Connection(loop, raw, on_free=self._keep, on_lost=self._all.discard),
            self.proxy,
        )

    def _keep(self, connection: Connection) -> None:
        if self._closed or len(self._idle) >= IDLE_MAX:
            connection.abort()
            return
        loop = connection.loop
        connection.free_since = loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(SWEEP_S, self._drop_old, loop)

    def _drop_old(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what has been idle for too long: the first of the list, since it is a stack."""
        oldest = loop.time() - IDLE_S_MAX
        kept = [each for each in self._idle if each.free_since >= oldest and not each.closed]
        for connection in self._idle:
            if connection.free_since < oldest:
                connection.abort()
        self._idle = kept
        self._sweep = loop.call_later(SWEEP_S, self._drop_old, loop) if kept else None


def stopping() -> AdapterError:
    """The failure of calls that the appliance's own stop has ended."""
    return AdapterError(FailureKind.UPSTREAM, "the appliance is stopping")
