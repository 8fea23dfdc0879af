"""The load generator: streamed chats over HTTP, with as little work as can be while they run.

It shares the machine's cores with what it measures. So a read costs one call into Python, which
keeps the bytes and the time, and everything else (chunked encoding, events, JSON) is looked at when
the round is over. Both servers are asked by the same code with the same bytes.
"""

import asyncio
import json
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast

ANSWER_SECONDS_MAX = 600.0


class Refused(RuntimeError):
    """The server did not answer as the bench needs it; the text has its words."""


@dataclass(kw_only=True)
class Answer:
    """One answer. Times are seconds of ``time.perf_counter``; ``token_s`` has one for each piece
    of text, in order, which is one token but for those that end within a character.
    """

    sent_s: float
    token_s: list[float]
    end_s: float
    output_tokens: int
    prompt_tokens: int
    cached_tokens: int = 0
    text: str = ""

    @property
    def first_s(self) -> float:
        """Seconds from the request to the first text."""
        return self.token_s[0] - self.sent_s


@dataclass
class _Exchange:
    """What came on one connection, as it came."""

    sent_s: float
    reads: list[tuple[float, bytes]] = field(default_factory=list)
    end_s: float = 0.0


class _Connection(asyncio.Protocol):
    """Sends one request and keeps what comes until the server closes."""

    def __init__(self, request: bytes, begun: "asyncio.Future[None] | None") -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exchange = _Exchange(0.0)
        self._request = request
        self._reads = self.exchange.reads
        self._begun = begun
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self.exchange.sent_s = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._reads.append((time.perf_counter(), data))
        if self._begun is not None and b'"content":"' in data.replace(b'"content":""', b""):
            self._begun.set_result(None)
            self._begun = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.exchange.end_s = time.perf_counter()
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
        if not self.over.done():
            self.over.set_result(None)


class HttpTarget:
    """A server that speaks OpenAI's API on loopback."""

    def __init__(self, name: str, port: int, model: str, key: str = "") -> None:
        self.name = name
        self._port = port
        self._model = model
        self._authorization = f"Authorization: Bearer {key}\r\n" if key else ""

    async def ask(
        self,
        chat: dict[str, Any],
        *,
        begun: "asyncio.Future[None] | None" = None,
        enough: asyncio.Event | None = None,
    ) -> Answer:
        """One streamed answer. ``begun`` is resolved at its first text; ``enough`` ends it early.

        Raises Refused.
        """
        request = self._request(chat)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(request, begun), "127.0.0.1", self._port
        )
        stopping = None if enough is None else loop.create_task(_close_when(enough, connection))
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await connection.over
        finally:
            if stopping is not None:
                stopping.cancel()
            if connection.transport is not None:
                connection.transport.abort()
        return read(connection.exchange, cut=enough is not None and enough.is_set())

    def _request(self, chat: dict[str, Any]) -> bytes:
        asked = {"model": self._model, **chat, "stream": True}
        asked["stream_options"] = {"include_usage": True}
        body = json.dumps(asked).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Connection: close\r\nContent-Type: application/json\r\n{self._authorization}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def _close_when(enough: asyncio.Event, connection: _Connection) -> None:
    await enough.wait()
    if connection.transport is not None:
        connection.transport.abort()


def read(exchange: _Exchange, *, cut: bool) -> Answer:
    """Make sense of what came. ``cut``: we ended it, so its usage is missing. Raises Refused."""
    whole = b"".join(data for _, data in exchange.reads)
    head, _, body = whole.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise Refused(whole[:1000].decode("utf-8", "replace"))
    chunked = b"transfer-encoding: chunked" in head.lower()
    ends = list(accumulate(len(data) for _, data in exchange.reads))
    token_s: list[float] = []
    texts: list[str] = []
    usage: dict[str, Any] = {}
    for at, event in _events(body, len(head) + 4, chunked=chunked):
        if event == b"[DONE]":
            continue
        chunk = json.loads(event)
        if "error" in chunk:
            raise Refused(event.decode("utf-8", "replace"))
        for choice in chunk.get("choices", ()):
            if text := choice["delta"].get("content"):
                token_s.append(exchange.reads[bisect_left(ends, at)][0])
                texts.append(text)
        usage = chunk.get("usage") or usage
    if not token_s or not (usage or cut):
        raise Refused(f"a stream without text, or without usage: {whole[-500:]!r}")
    details = usage.get("prompt_tokens_details") or {}
    return Answer(
        sent_s=exchange.sent_s,
        token_s=token_s,
        end_s=exchange.end_s,
        output_tokens=usage.get("completion_tokens", len(token_s)),
        prompt_tokens=usage.get("prompt_tokens", 0),
        cached_tokens=details.get("cached_tokens") or 0,
        text="".join(texts),
    )


def _events(body: bytes, begins: int, *, chunked: bool) -> Iterator[tuple[int, bytes]]:
    """Each event's data, with how many bytes of the whole answer had come when it was complete."""
    rest = b""
    for at, part in _parts(body, begins) if chunked else [(begins + len(body), body)]:
        *events, rest = (rest + part).split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):
                if line.startswith(b"data: "):
                    yield at, line[6:]


def _parts(body: bytes, begins: int) -> Iterator[tuple[int, bytes]]:
    """The parts of a chunked body, each with the offset of its end (RFC 9112, section 7.1)."""
    at = 0
    while (line_end := body.find(b"\r\n", at)) > 0:
        size = int(body[at:line_end].partition(b";")[0], 16)
        part = body[line_end + 2 : line_end + 2 + size]
        if not size or len(part) < size:
            return
        yield begins + line_end + 2 + size, part
        at = line_end + 2 + size + 2
