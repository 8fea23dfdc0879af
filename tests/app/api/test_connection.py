"""Headers have a deadline and a byte limit; nothing below the application waits without end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
import uvicorn
from litestar.types import Receive, Scope, Send

from app.api import connection
from app.api.answer import send_answer
from app.api.connection import BoundedHttp


async def application(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send_answer(send, 200, b"{}")


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(connection, "HEADER_SECONDS_MAX", 0.3)
    config = uvicorn.Config(
        application, host="127.0.0.1", port=0, http=BoundedHttp, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def answer_to(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """What comes back until the server closes, or for a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):  # it may close before all is said
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
    received = b""
    try:
        async with asyncio.timeout(1.5):
            while data := await reader.read(65536):
                received += data
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    return received


async def test_slow_headers_are_cut_off(port: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n"
    received = await answer_to(port, *(head[n : n + 1] for n in range(20)), pause_s=0.03)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert "did not arrive" in json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]


async def test_an_unused_connection_is_closed_without_an_answer(port: int) -> None:
    assert await answer_to(port) == b""


async def test_endless_headers_are_refused(port: int) -> None:
    pieces = [b"GET / HTTP/1.1\r\nHost: a\r\n", *[b"X-A: " + b"a" * 5000 + b"\r\n"] * 9]
    received = await answer_to(port, *pieces, pause_s=0.01)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"larger than 32 KiB" in received


async def test_a_kept_connection_may_rest_longer_than_headers_may_take(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    received = await answer_to(port, request, request, pause_s=0.6)
    assert received.count(b"HTTP/1.1 200 OK") == 2


async def test_a_body_larger_than_the_headers_may_be_is_no_header(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    received = await answer_to(port, head + b"x" * 50_000, b"x" * 50_000, pause_s=0.02)
    assert received.startswith(b"HTTP/1.1 200 OK")
