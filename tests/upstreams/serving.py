"""A small real HTTP/1.1 server on loopback: what every played provider is built on.

A provider is a coroutine ``play(request, reply)``. The reply can do what real servers do and what
they should not: answer, stream, stall, cut the line, reset it. A client that closes the connection
ends ``play`` with ``CancelledError``; ``Serving.gone`` counts those.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import weakref
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Headers = Iterable[tuple[str, str]]


class Cut(Exception):
    """The reply closed its connection; nothing more can be written."""


@dataclass(frozen=True)
class Asked:
    """One request as it came in; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What the server writes; use ``answer``, or ``begin``, ``send``… and ``end``."""

    writer: asyncio.StreamWriter
    chunked: bool = False
    begun: bool = False

    async def answer(
        self, status: int, body: bytes | str | Any, headers: Headers = (), kind: str = ""
    ) -> None:
        """A whole answer; what is neither bytes nor text is sent as JSON."""
        kind = kind or ("text/plain" if isinstance(body, str) else "application/json")
        data = body.encode() if isinstance(body, str) else body
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        self._head(status, kind, [*headers, ("Content-Length", str(len(data)))])
        self.writer.write(data)
        await self.writer.drain()

    async def begin(
        self, status: int = 200, kind: str = "text/event-stream", headers: Headers = ()
    ) -> None:
        """The head of a chunked answer."""
        self.chunked = True
        self._head(status, kind, [*headers, ("Transfer-Encoding", "chunked")])
        await self.writer.drain()

    async def send(self, data: bytes | str) -> None:
        """One chunk."""
        piece = data.encode() if isinstance(data, str) else data
        self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await self.writer.drain()

    async def event(self, data: Any, name: str = "") -> None:
        """One server-sent event; what is not text is sent as JSON."""
        text = data if isinstance(data, str) else json.dumps(data)
        await self.send((f"event: {name}\n" if name else "") + f"data: {text}\n\n")

    async def end(self) -> None:
        """The last chunk."""
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def close(self) -> None:
        """Close in the middle of whatever has been written."""
        await self.writer.drain()
        await asyncio.sleep(0.02)  # the client reads what came before
        self.writer.close()
        raise Cut

    async def reset(self) -> None:
        """Reset the connection (RST)."""
        await self.writer.drain()
        await asyncio.sleep(0.02)
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Cut

    async def hang(self) -> None:
        """Say nothing more until the client leaves."""
        await asyncio.Event().wait()

    def _head(self, status: int, kind: str, headers: Headers) -> None:
        self.begun = True
        lines = [f"HTTP/1.1 {status} Played", f"Content-Type: {kind}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


Play = Callable[[Asked, Reply], Awaitable[None]]


@dataclass
class Serving:
    """One listening socket; leave the context to close it and everything on it."""

    play: Play
    tls: ssl.SSLContext | None = None
    port: int = 0
    gone: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections_open: int = 0
    connections_total: int = 0

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Serving":
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self.tls
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        writers = tuple(self._writers)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    def is_ours(self, task: "asyncio.Task[Any]") -> bool:
        """Whether a task is this server's, for the conformance kit."""
        name = getattr(task.get_coro(), "__qualname__", "")
        return task in self._tasks or name.startswith(("Serving.", "StreamReader."))

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_total += 1
        self.connections_open += 1
        self._writers.add(writer)
        quiet = (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, Cut)
        try:
            with contextlib.suppress(*quiet, ssl.SSLError):
                while await self._one(reader, writer):
                    pass
        finally:
            self.connections_open -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        asked = Asked(method, target, headers, body)
        self.asked.append(asked)
        playing = asyncio.ensure_future(self._play(asked, Reply(writer)))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                playing.result()
                return True
            self.gone += 1
            return False
        finally:
            for task in (playing, leaving):
                task.cancel()
            await asyncio.gather(playing, leaving, return_exceptions=True)

    async def _play(self, asked: Asked, reply: Reply) -> None:
        await self.play(asked, reply)
