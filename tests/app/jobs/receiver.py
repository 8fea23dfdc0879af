"""A played receiver of webhooks: a real HTTP server on loopback that does what it is told."""

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

SLOW = "slow"  # takes the request and never answers
CUT = "cut"  # takes the request and closes
ENDLESS = "endless"  # status 200, and a body that does not end
REDIRECT = "redirect"  # to itself, under another path


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Answers with the scripted behaviours in turn (a status, or one of the above), then 204."""

    def __init__(self, *script: int | str) -> None:
        self.script: deque[int | str] = deque(script)
        self.received: list[Received] = []
        self.headers = ""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?of=turnpike"

    async def __aenter__(self) -> "Receiver":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    await self._one(reader, writer)
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in head[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received.append(Received(head[0].split(" ")[1], headers, body))
        does = self.script.popleft() if self.script else 204
        if does == SLOW:
            await reader.read()  # until the other side gives up
        if does in (SLOW, CUT):
            raise ConnectionResetError
        if does == ENDLESS:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await writer.drain()
        if does == REDIRECT:
            writer.write(b"HTTP/1.1 307 Go\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        else:
            text = f"HTTP/1.1 {does} X\r\n{self.headers}Content-Length: 0\r\n\r\n"
            writer.write(text.encode())
        await writer.drain()
