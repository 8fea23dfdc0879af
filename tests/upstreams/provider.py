"""A real HTTP server on loopback that plays an OpenAI-compatible provider, faults included.

In a test::

    async with PlayedProvider() as provider:
        provider.script("rate_limited", "normal")     # the next two requests
        provider.always = SCENES["long"]              # every one after them
        ... talk to provider.base_url ...
        assert provider.books[-1].completion_tokens == 100

In another process: ``python -m tests.upstreams.provider --port 9001 [--scene long]``, steered with
``POST /control`` (``{"script": ["reset"], "always": "normal"}``) and read with ``GET /control``
(``{"books": [...], "connections_open": n}``).

Which scene a request meets: the next scripted one; else the one that ``choose`` picks for it; else
the one its model names (``play:reset``); else the one its last user message names (``play:reset
…``); else ``always``. ``books`` has one ``Booked`` per chat request, with what a provider would
bill for it: one token per word, prompt and delivered answer; nothing for refusals. A streamed
answer that the client leaves is billed up to the last word written.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import socket
import ssl
import struct
import weakref
import zlib
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from types import TracebackType
from typing import Any

from tests.upstreams.events import events, hang
from tests.upstreams.scenes import (
    SCENES,
    Answer,
    Booked,
    JsonObject,
    Scene,
    error_body,
    prompt_tokens,
)

HEAD_BYTES_MAX = 64 * 1024
GARBAGE = b'\n\ndata: {"choices":\xff\xfe[\n\n'
Choose = Callable[[JsonObject], Scene | str | None]


class PlayedProvider:
    """See the module. One object is one listening socket; leave the context to close it."""

    def __init__(
        self,
        *,
        port: int = 0,
        always: Scene | str = "normal",
        tls: ssl.SSLContext | None = None,
        request_id_header: str | None = None,
        choose: Choose | None = None,
    ) -> None:
        self.books: list[Booked] = []
        self.choose = choose
        self.gate = asyncio.Event()  # while it is not set, no answer begins
        self.gate.set()
        self.always = SCENES[always] if isinstance(always, str) else always
        self.request_id_header = request_id_header  # on every answer, with the id of its `Booked`
        self.connections_total = 0
        self.connections_open = 0
        self._script: deque[Scene] = deque()
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()

    def script(self, *scenes: Scene | str) -> None:
        """Queue scenes for the next requests, one each."""
        self._script.extend(SCENES[s] if isinstance(s, str) else s for s in scenes)

    @property
    def base_url(self) -> str:
        """What goes into a provider's ``base_url``."""
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._port}/v1"

    async def __aenter__(self) -> "PlayedProvider":
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self._port, limit=HEAD_BYTES_MAX, ssl=self._tls
        )
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
        writers = tuple(self._writers)
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        for writer in writers:
            # A close would wait for a client that no longer reads.
            writer.transport.abort()
        await self._server.wait_closed()
        await asyncio.sleep(0)

    async def wait_until(self, condition: Callable[[], bool], seconds: float = 5.0) -> None:
        """Poll until the books (or anything else) say so; TimeoutError when they never do."""
        async with asyncio.timeout(seconds):
            # A condition over the books has no event to wait for.
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: requests one after another until either side closes."""
        self.connections_total += 1
        self.connections_open += 1
        self._writers.add(writer)
        gone = (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError)
        try:
            with contextlib.suppress(*gone):
                while await self._one_request(reader, writer):
                    pass
        finally:
            self.connections_open -= 1
            writer.close()

    async def _one_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Read one request and act on it; false ends the connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if path == "/control":
            await _respond(writer, 200, self._control(method, body))
            return True
        if path == "/v1/models":
            models = {"object": "list", "data": [{"id": "m", "object": "model"}]}
            await _respond(writer, 200, json.dumps(models).encode())
            return True
        if (method, path) != ("POST", "/v1/chat/completions"):
            await _respond(writer, 404, b'{"error": {"message": "no such route"}}')
            return True
        return await self._watched(reader, writer, headers, body)

    async def _watched(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        headers: dict[str, str],
        body: bytes,
    ) -> bool:
        """Play the scene, and stop it as soon as the client closes the connection."""
        request: JsonObject = json.loads(body)
        scene = self._scene_for(request)
        booked = Booked(
            number=len(self.books),
            id=f"chatcmpl-{len(self.books):08d}",
            scene=scene.name,
            model=str(request.get("model")),
            stream=bool(request.get("stream")),
            status=scene.status,
            request=request,
            headers=headers,
        )
        self.books.append(booked)
        if self.request_id_header is not None:
            named = (self.request_id_header, booked.id)
            scene = dataclasses.replace(scene, headers=(*scene.headers, named))
        playing = asyncio.ensure_future(self._play(writer, Answer(scene, request, booked)))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done() and not playing.cancelled() and playing.exception() is None:
                return playing.result()
            booked.gone = True
            return False
        finally:
            for task in (playing, leaving):
                task.cancel()
            await asyncio.gather(playing, leaving, return_exceptions=True)
            booked.ended = True

    async def _play(self, writer: asyncio.StreamWriter, answer: Answer) -> bool:
        await self.gate.wait()
        return await _play(writer, answer)

    def _scene_for(self, request: JsonObject) -> Scene:
        if self._script:
            return self._script.popleft()
        chosen = self.choose(request) if self.choose is not None else None
        if chosen is not None:
            return SCENES[chosen] if isinstance(chosen, str) else chosen
        users = [m for m in request.get("messages", []) if m.get("role") == "user"]
        prompt = users[-1].get("content") if users else ""
        for text in (request.get("model"), prompt):
            if isinstance(text, str) and text.startswith("play:"):
                name = text.removeprefix("play:").split(maxsplit=1)[0]
                return SCENES[name]
        return self.always

    def _control(self, method: str, body: bytes) -> bytes:
        if method == "POST":
            order: dict[str, Any] = json.loads(body)
            if "always" in order:
                self.always = SCENES[order["always"]]
            self.script(*order.get("script", []))
        books = [dataclasses.asdict(booked) for booked in self.books]
        return json.dumps({"books": books, "connections_open": self.connections_open}).encode()


async def _respond(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    content_type: str = "application/json",
    headers: tuple[tuple[str, str], ...] = (),
) -> None:
    writer.write(_head(status, content_type, (*headers, ("Content-Length", str(len(body))))) + body)
    await writer.drain()


def _head(status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [f"HTTP/1.1 {status} Played", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _play(writer: asyncio.StreamWriter, answer: Answer) -> bool:
    """Act one scene out. True keeps the connection."""
    scene, booked = answer.scene, answer.booked
    await asyncio.sleep(scene.wait_s)
    if scene.status != 200 or scene.body is not None:
        kind = scene.content_type or "application/json"
        if answer.booked.stream and scene.content_type is None and scene.status == 200:
            kind = "text/event-stream"
        await _respond(writer, scene.status, scene.body or b"", kind, scene.headers)
        booked.finished = True
        return True
    booked.prompt_tokens = prompt_tokens(answer.request)
    if scene.compute_s is not None:
        booked.compute_ns = int(Decimal(scene.compute_s).scaleb(9))
    if booked.stream:
        return await _play_stream(writer, answer)
    body = answer.whole()
    if scene.error_after is not None:
        body = error_body("failed midway")
        booked.prompt_tokens = booked.completion_tokens = 0
    encoding = (("Content-Encoding", "gzip"),) if scene.gzip else ()
    length = (("Content-Length", str(len(body))),)
    writer.write(_head(200, "application/json", (*_headers(scene), *encoding, *length)))
    if scene.hang_at == "head":
        await hang(booked)
    if scene.hang_after is not None or scene.hang_at == "end":
        await _send(writer, scene, body[: len(body) // 2 if scene.hang_after else -1], sent=0)
        await hang(booked)
    if scene.drip_s:
        for at in range(len(body)):
            await _send(writer, scene, body[at : at + 1], sent=at)
            await asyncio.sleep(scene.drip_s)
    elif not await _send(writer, scene, body, sent=0):
        return False
    booked.finished = True
    return True


def _headers(scene: Scene) -> tuple[tuple[str, str], ...]:
    took = (("X-Compute-Time", scene.compute_s),) if scene.compute_s is not None else ()
    return (*scene.headers, *took)


async def _send(writer: asyncio.StreamWriter, scene: Scene, data: bytes, sent: int) -> bool:
    """Write body bytes unless the scene cuts the connection within them; false when it did."""
    cut = scene.reset_after if scene.reset_after is not None else scene.close_after
    if cut is None or sent + len(data) <= cut:
        writer.write(data)
        await writer.drain()
        return True
    writer.write(data[: max(0, cut - sent)])
    await writer.drain()
    # The client reads what came before the cut; a reset would otherwise overtake it.
    await asyncio.sleep(0.02)
    if scene.reset_after is not None:
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    return False


async def _play_stream(writer: asyncio.StreamWriter, answer: Answer) -> bool:
    scene, booked = answer.scene, answer.booked
    encoding = (("Content-Encoding", "gzip"),) if scene.gzip else ()
    framing = (("Transfer-Encoding", "chunked"),)
    writer.write(_head(200, "text/event-stream", (*_headers(scene), *encoding, *framing)))
    if scene.hang_at == "head":
        await hang(booked)
    squeeze = zlib.compressobj(wbits=31) if scene.gzip else None
    sent = 0
    async for text in events(answer):
        data = text.encode()
        spoiled = scene.garbage_after is not None and sent + len(data) > scene.garbage_after
        if spoiled:
            data = data[: max(0, (scene.garbage_after or 0) - sent)] + GARBAGE
        if squeeze is not None:
            data = squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        size = scene.slice_bytes or len(data)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            writer.write(b"%x\r\n" % len(piece))
            if not await _send(writer, scene, piece, sent):
                return False
            writer.write(b"\r\n")
            sent += len(piece)
            if scene.slice_bytes:
                await writer.drain()
                await asyncio.sleep(0)
        if spoiled:
            break
    else:
        booked.finished = True
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def _main() -> None:
    parser = argparse.ArgumentParser(description="An OpenAI-compatible provider that is played.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--scene", default="normal", choices=sorted(SCENES))
    options = parser.parse_args()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with PlayedProvider(port=options.port, always=options.scene) as provider:
        print(provider.base_url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_main())
