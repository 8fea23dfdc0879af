"""A real HTTP server on loopback that plays a provider's billing API, faults included.

In a test::

    async with PlayedBilling() as billing:
        billing.costs["chatcmpl-1"] = "1200"      # the text of the number, as it is sent
        billing.script("later", "server_error")   # the next two requests
        ... ask billing.url ...
        assert billing.asked == [["chatcmpl-1"], …]

What is asked is answered with what is in ``costs``; the rest is left out.
"""

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A request that is answered with something else. ``body`` None: what the costs say.

    ``repeated`` sends the body so many times; ``silent`` never answers; ``breaks`` closes the
    connection in the middle of the body.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    repeated: int = 1
    silent: bool = False
    breaks: bool = False


FAULTS: dict[str, Fault] = {
    "normal": Fault(),
    "later": Fault(body=b'{"requests": null}'),
    "garbage": Fault(body=b'{"requests": [{"requestId"'),
    "no_utf8": Fault(body=b'{"requests": "\xff\xfe\xfa"}'),
    "html": Fault(headers=(("Content-Type", "text/html"),), body=b"<html>It works!</html>"),
    "empty": Fault(body=b""),
    "other_shape": Fault(body=b'{"costs": []}'),
    "list": Fault(body=b"[]"),
    "not_a_list": Fault(body=b'{"requests": {"a": 1}}'),
    "deep": Fault(body=b'{"requests": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "bad_request": Fault(status=400, body=b"{}"),
    "unauthorised": Fault(status=401, body=b"{}"),
    "server_error": Fault(status=500),  # with the right costs in it
    "redirect": Fault(status=307, headers=(("Location", "/elsewhere"),)),
    "gzip": Fault(headers=(("Content-Encoding", "gzip"),)),
    "huge": Fault(body=b" " * (1024 * 1024), repeated=34),
    "slow": Fault(silent=True),
    "cut": Fault(breaks=True),
}


class PlayedBilling:
    """See the module. One object is one listening socket; leave the context to close it."""

    def __init__(self) -> None:
        self.costs: dict[str, str] = {}
        self.asked: list[list[str]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._script: deque[Fault] = deque()
        self._port = 0
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def script(self, *faults: Fault | str) -> None:
        """Queue faults for the next requests, one each."""
        self._script.extend(FAULTS[f] if isinstance(f, str) else f for f in faults)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Its own tasks, one per connection."""
        return self._serving

    @property
    def url(self) -> str:
        """What goes into a provider's ``billing.url``."""
        return f"http://127.0.0.1:{self._port}/billing"

    async def __aenter__(self) -> "PlayedBilling":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError)
        try:
            with contextlib.suppress(*gone):
                while await self._one_request(reader, writer):
                    pass
        finally:
            writer.transport.abort()

    async def _one_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        assert method == "POST"
        ids: list[str] = json.loads(body)["requestIds"]
        self.asked.append(ids)
        self.paths.append(path)
        self.headers.append(headers)
        fault = self._script.popleft() if self._script else FAULTS["normal"]
        if fault.silent:
            await reader.read(1)
            return False
        answer = self._answer(ids) if fault.body is None else fault.body
        length = len(answer) * fault.repeated + (100 if fault.breaks else 0)
        lines = [f"HTTP/1.1 {fault.status} Played", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in fault.headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        for _ in range(fault.repeated):
            writer.write(answer)
            await writer.drain()
        return not fault.breaks

    def _answer(self, ids: list[str]) -> bytes:
        entries = ",".join(
            f'{{"requestId": {json.dumps(id_)}, "costNanoUsd": {self.costs[id_]}}}'
            for id_ in ids
            if id_ in self.costs
        )
        return f'{{"requests": [{entries}]}}'.encode()
