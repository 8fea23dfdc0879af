"""Clients on bare sockets: they keep a connection and can drop it at any byte, which HTTP
libraries do not let one do."""

import asyncio
import json
import os
import random
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MODEL = "acme/tiny"


def seed_of_run() -> random.Random:
    """Chance that can be had again: ``TURNPIKE_SEED`` replays the run that printed it."""
    seed = int(os.environ.get("TURNPIKE_SEED") or random.SystemRandom().randrange(2**32))
    print(f"TURNPIKE_SEED={seed}")
    return random.Random(seed)


def chat(
    text: str = "one two three", *, model: str = MODEL, stream: bool = False, **params: Any
) -> dict[str, Any]:
    """The body of a chat request."""
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "stream": stream, **params}


@dataclass
class Heard:
    """What a client heard: nothing (status 0) where it dropped the connection before the headers.

    ``dropped`` says that it left before the end.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    dropped: bool = False

    @property
    def call_id(self) -> str:
        """The call's id; '' where no headers came."""
        return self.headers.get("inference-id", "")

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream, as far as it is whole."""
        *whole, _ = self.body.decode("utf-8", "replace").split("\n\n")
        return [event.removeprefix("data: ") for event in whole if event.startswith("data: ")]

    @property
    def done(self) -> bool:
        """Whether a stream came to its clean end."""
        return self.events[-1:] == ["[DONE]"]

    @property
    def error(self) -> dict[str, Any] | None:
        """The error: a refusal's, or the last event of a stream that broke off."""
        if self.status != 200:
            found = json.loads(self.body) if self.body else {}
        else:
            last = self.events[-1] if self.events else "{}"
            found = {} if last == "[DONE]" else json.loads(last)
        error: dict[str, Any] | None = found.get("error")
        return error

    @property
    def text(self) -> str:
        """The answer's words, streamed or not."""
        if not self.body.startswith(b"data: "):
            found = json.loads(self.body)["choices"][0]["message"]["content"]
            return str(found)
        chunks = [json.loads(event) for event in self.events if event != "[DONE]"]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def id(self) -> str:
        """The id of the answer itself, which a repeat shares."""
        whole = self.body.decode()
        found: str = json.loads(self.events[0] if whole.startswith("data: ") else whole)["id"]
        return found


class Caller:
    """One client with one connection at a time; make requests one after the other."""

    def __init__(self, base_url: str, key: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._key = key
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(
        self,
        body: dict[str, Any],
        *,
        headers: dict[str, str] | None = None,
        drop_at: int | None = None,
        cut_at: int | None = None,
        path: str = "/v1/chat/completions",
    ) -> Heard:
        """One request. ``drop_at``: leave after so many bytes of the answer, headers counted;
        ``cut_at``: leave after so many bytes of the request. Raises OSError, EOFError where the
        server goes away.
        """
        request = self._request(path, body, headers or {})
        if self._writer is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        assert self._reader is not None
        self._writer.write(request[:cut_at])
        if cut_at is not None and cut_at < len(request):
            await self._writer.drain()
            self.drop()
            return Heard(dropped=True)
        if drop_at is not None:
            return await self._part_of(self._reader, drop_at)
        return await _whole(self._reader)

    def drop(self) -> None:
        """Leave: the connection is reset."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._reader = self._writer = None

    def _request(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> bytes:
        content = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"Authorization: Bearer {self._key}",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + content

    async def _part_of(self, reader: asyncio.StreamReader, drop_at: int) -> Heard:
        """Read ``drop_at`` bytes, or all where that is less, then leave in any case."""
        got = b""
        while len(got) < drop_at and not _is_whole(got):
            piece = await reader.read(drop_at - len(got))
            if not piece:
                break
            got += piece
        self.drop()
        head, found, rest = got.partition(b"\r\n\r\n")
        if not found:
            return Heard(dropped=True)
        status, headers = _head(head)
        chunked = headers.get("transfer-encoding") == "chunked"
        body = _unchunked(rest) if chunked else rest
        return Heard(status, headers, body, dropped=not _is_whole(got))


async def _whole(reader: asyncio.StreamReader) -> Heard:
    head = await reader.readuntil(b"\r\n\r\n")
    status, headers = _head(head[:-4])
    if headers.get("transfer-encoding") != "chunked":
        body = await reader.readexactly(int(headers["content-length"]))
        return Heard(status, headers, body)
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return Heard(status, headers, b"".join(parts))


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


def _unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size or b"0", 16)
        body += data[:length]
        data = data[length + 2 :]
    return body


def _is_whole(answer: bytes) -> bool:
    head, found, rest = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    _, headers = _head(head)
    if headers.get("transfer-encoding") == "chunked":
        return rest.endswith(b"0\r\n\r\n")
    return len(rest) >= int(headers.get("content-length", "0"))
