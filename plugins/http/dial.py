"""Opening connections: names to addresses, addresses to sockets, proxies, TLS.

Nothing here knows a time limit; callers put one around all of it. Whatever stage is cancelled, no
socket stays open.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from plugins.http.connection import Connection
from plugins.http.proxy import Origin, Proxy

# How long one address may keep the next one waiting (RFC 8305, section 5).
STAGGER_S = 0.25
PROXY_HEAD_BYTES_MAX = 64 * 1024

_PROXY_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


class Address(NamedTuple):
    """Where a socket can be connected to."""

    family: int
    where: tuple[Any, ...]


Make = Callable[[asyncio.AbstractEventLoop, socket.socket], Connection]


async def resolve(host: str, port: int) -> list[Address]:
    """Addresses in the order to try them in: families take turns. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise OSError(f"{host!r} has no address")
    return _in_turns(Address(family, where) for family, _, _, _, where in found)


async def dial(
    origin: Origin,
    addresses: Sequence[Address],
    context: ssl.SSLContext | None,
    make: Make,
    proxy: Proxy | None = None,
) -> Connection:
    """A connection to an origin, at ``addresses`` (the proxy's, where there is one).

    ``context`` is for https. Raises OSError, ssl.SSLError among them, and ValueError.
    """
    loop = asyncio.get_running_loop()
    raw = await _reach(addresses)
    try:
        if proxy is not None and origin.scheme == "https":
            await _tunnel(loop, raw, proxy, origin)
        connection = make(loop, raw)
    except BaseException:
        raw.close()
        raise
    # From here on the event loop owns the socket.
    await loop.create_connection(
        lambda: connection,
        sock=raw,
        ssl=context if origin.scheme == "https" else None,
        server_hostname=origin.host.rstrip(".") if origin.scheme == "https" else None,
    )
    return connection


def _in_turns(addresses: Iterable[Address]) -> list[Address]:
    """The first family first, then by turns (RFC 8305, section 4)."""
    by_family: dict[int, list[Address]] = {}
    for address in addresses:
        by_family.setdefault(address.family, []).append(address)
    queues = list(by_family.values())
    longest = max(map(len, queues))
    return [queue[n] for n in range(longest) for queue in queues if n < len(queue)]


async def _reach(addresses: Sequence[Address]) -> socket.socket:
    """A socket connected to one of the addresses. Raises the last OSError."""
    if len(addresses) == 1:
        return await _connect(addresses[0])
    race = _Race()
    try:
        for address in addresses:
            race.enter(address)
            if await race.wait(STAGGER_S):
                break
        else:
            await race.wait(None)
        return race.winner()
    finally:
        await race.end()


class _Race:
    """Connects that run side by side until the first succeeds."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[socket.socket]] = set()
        self._sockets: list[socket.socket] = []
        self._error: BaseException = OSError("no address")

    def enter(self, address: Address) -> None:
        self._running.add(asyncio.ensure_future(_connect(address)))

    async def wait(self, seconds: float | None) -> bool:
        """True as soon as there is a winner; false when all have failed, or after ``seconds``."""
        while self._running:
            done, self._running = await asyncio.wait(
                self._running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    self._sockets.append(task.result())
                else:
                    self._error = error
            if self._sockets:
                return True
            if seconds is not None:
                return False
        return False

    def winner(self) -> socket.socket:
        if not self._sockets:
            raise self._error
        return self._sockets.pop(0)

    async def end(self) -> None:
        """Close what came second, and stop the rest."""
        for task in self._running:
            task.cancel()
            task.add_done_callback(_close_result)
        for late in self._sockets:
            late.close()
        if self._running:
            await asyncio.wait(self._running)


def _close_result(task: "asyncio.Task[socket.socket]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(address: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    raw = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A provider may think for minutes; routers on the way forget a silent connection.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await loop.sock_connect(raw, address.where)
    except BaseException:
        raw.close()
        raise
    return raw


async def _tunnel(
    loop: asyncio.AbstractEventLoop, raw: socket.socket, proxy: Proxy, origin: Origin
) -> None:
    """Ask a proxy to connect us through (RFC 9110, section 9.3.6)."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    where = f"{host}:{origin.port}"
    lines = [f"CONNECT {where} HTTP/1.1", f"host: {where}"]
    if proxy.authorization is not None:
        lines.append(f"proxy-authorization: {proxy.authorization}")
    await loop.sock_sendall(raw, "\r\n".join([*lines, "", ""]).encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head:
        received = await loop.sock_recv(raw, 4096)
        head += received
        if not received or len(head) > PROXY_HEAD_BYTES_MAX:
            raise ConnectionError("the proxy's answer to CONNECT is not HTTP")
    status = _PROXY_STATUS.match(head)
    if status is None or not head.endswith(b"\r\n\r\n"):
        raise ConnectionError("the proxy's answer to CONNECT is not HTTP")
    if not 200 <= int(status[1]) < 300:
        raise ConnectionError(f"the proxy answered CONNECT with {status[1].decode()}")
