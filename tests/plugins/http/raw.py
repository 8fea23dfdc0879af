"""A server that says exactly what a test gives it, and knows what became of its connections."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType

import pytest

from plugins.contract import AdapterError, FailureKind
from plugins.http.client import Client, Exchange, HttpRequest

Play = Callable[["Line"], Awaitable[None]]
ASK = HttpRequest(target="/things", body=b"{}")
PATIENCE_S = 20.0
# A host that no name server knows and no proxy exception covers.
FAR = "provider.example"


class Line:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> tuple[str, dict[str, str], bytes]:
        """The next request: its first line, its headers, its body. Raises IncompleteReadError when
        the client has gone."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        assert len(headers) == len([line for line in head[1:] if line]), "no header comes twice"
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return head[0], headers, body

    async def say(self, data: bytes, *, slices: int = 0) -> None:
        """Write, in slices of so many bytes where it is given."""
        for start in range(0, len(data), slices or max(len(data), 1)):
            self.writer.write(data[start : start + (slices or len(data))])
            await self.writer.drain()
            if slices:
                await asyncio.sleep(0)

    async def answer(self, body: bytes = b"{}", status: int = 200, head: str = "") -> None:
        await self.say(
            f"HTTP/1.1 {status} Said\r\n{head}content-length: {len(body)}\r\n\r\n".encode() + body
        )

    async def gone(self) -> None:
        """Until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """RST."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RawServer:
    """Runs ``play`` for each connection; ``total`` and ``open`` count them."""

    def __init__(self, play: Play, tls: ssl.SSLContext | None = None) -> None:
        self.total = 0
        self.open = 0
        self.changed = asyncio.Condition()
        self._play = play
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "RawServer":
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", 0, ssl=self._tls, backlog=1024
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def until(self, holds: Callable[["RawServer"], bool]) -> None:
        """Wait for the counts to be so."""
        async with asyncio.timeout(PATIENCE_S), self.changed:
            await self.changed.wait_for(lambda: holds(self))

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._run(Line(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, line: Line) -> None:
        await self._count(1)
        left = (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)
        try:
            with contextlib.suppress(*left):
                await self._play(line)
        finally:
            line.writer.transport.abort()
            await self._count(-1)

    async def _count(self, change: int) -> None:
        self.total += change > 0
        self.open += change
        async with self.changed:
            self.changed.notify_all()


async def started(base_url: str, **options: object) -> Client:
    """A client, open."""
    client = Client(base_url, user_agent="Turnpike/test", **options)  # type: ignore[arg-type]  # as the caller gives them
    await client.start()
    return client


def soon(seconds: float = PATIENCE_S) -> float:
    """A moment in the loop's time."""
    return asyncio.get_running_loop().time() + seconds


async def fetch(
    client: Client, request: HttpRequest = ASK, *, by_s: float = PATIENCE_S, silence_s: float = 60.0
) -> tuple[Exchange, bytes]:
    return await client.fetch(request, by=soon(by_s), silence_s=silence_s)


async def streamed(
    client: Client, request: HttpRequest = ASK, *, by_s: float = PATIENCE_S
) -> tuple[Exchange, bytes]:
    """The same, piece by piece."""
    by = soon(by_s)
    exchange = await client.stream(request, by=by, silence_s=60.0)
    pieces = []
    try:
        while (piece := await exchange.read(by)) is not None:
            assert piece, "a piece is never empty"
            pieces.append(piece)
    finally:
        await exchange.close()
    return exchange, b"".join(pieces)


WAYS = {"fetch": fetch, "stream": streamed}


async def failure(asked: Awaitable[object]) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        await asked
    return caught.value


async def fails_as(kind: FailureKind, asked: Awaitable[object]) -> AdapterError:
    error = await failure(asked)
    assert error.kind is kind, f"{error.message}: {error.detail}"
    return error
