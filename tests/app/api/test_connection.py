"""Headers have a deadline and a byte limit; nothing below the application waits without end."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from litestar.types import Receive, Scope, Send

from app.api import connection
from app.api.answer import send_answer, start_answer
from app.api.connection import bounded_http
from app.config import Server

LARGE = 16 * 1024 * 1024  # more than the system keeps for a client that reads nothing


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers at once on /early, with very much on /large, otherwise after the body; on /slow a
    while after it, and on /begun in two parts."""
    more = scope["path"] != "/early"
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    elif scope["path"] == "/begun":
        await start_answer(send, 200, [])
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.sleep(0.3)
        await send({"type": "http.response.body", "body": b"second", "more_body": False})
        return
    await send_answer(send, 200, bytes(LARGE) if scope["path"] == "/large" else b"{}")


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(connection, "HEADER_SECONDS_MAX", 0.3)
    limits = Server(
        body_idle_seconds_max=0.3,
        body_seconds_max=0.8,
        unread_seconds_max=0.4,
        connections_per_address_max=3,
    )
    protocol = bounded_http(limits)
    config = uvicorn.Config(
        application, host="127.0.0.1", port=0, http=protocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def answer_to(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """What comes back, read while the pieces are sent, until the server closes or 1.5 s after."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()

    async def read() -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                received.extend(data)

    reading = asyncio.create_task(read())
    with contextlib.suppress(ConnectionError):  # it may close before all is said
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
    await asyncio.wait({reading}, timeout=1.5)
    reading.cancel()
    writer.close()
    return bytes(received)


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


@pytest.mark.parametrize("pause_s", [0.5, 0.1], ids=["silent", "dripping"])
async def test_a_body_that_does_not_come_is_cut_off(port: int, pause_s: float) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    received = await answer_to(port, head, *[b"x"] * 12, pause_s=pause_s)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"body did not arrive in time" in received


async def test_a_body_may_take_its_time_within_the_limits(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
    received = await answer_to(port, head, *[b"x"] * 5, pause_s=0.1)
    assert received.startswith(b"HTTP/1.1 200 OK")


async def test_an_early_answer_is_not_followed_by_another(port: int) -> None:
    head = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    received = await answer_to(port, head, b"x", pause_s=0.5)
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert received.count(b"HTTP/1.1 ") == 1


async def test_a_client_that_reads_nothing_is_cut_off(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(1.5)
    received = 0
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            received += len(data)
    assert received < LARGE, "the answer came whole"
    writer.close()


async def test_a_client_that_reads_slowly_gets_all_of_it(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    received = b""
    while len(received) < LARGE // 2:  # for longer than it may take nothing
        received += await reader.read(LARGE // 30)
        await asyncio.sleep(0.05)
    while data := await reader.read(LARGE):
        received += data
    assert len(received.partition(b"\r\n\r\n")[2]) == LARGE
    writer.close()


async def test_one_address_has_so_many_connections(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_is_counted", lambda _host: True)
    get = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    for _ in range(2):
        refused = await answer_to(port, get)
        head, _, body = refused.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nretry-after: 5" in head
        error = json.loads(body)["error"]
        assert error["code"] == "too_many_connections"
        assert f"inference-id: {error['request_id']}".encode() in head
    reader, writer = opened[0]
    writer.write(get)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    async with asyncio.timeout(5):
        while not (await answer_to(port, get)).startswith(b"HTTP/1.1 200 "):
            pass
    for _, writer in opened:
        writer.close()


async def test_connections_of_this_machine_are_not_counted(port: int) -> None:
    get = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    assert (await answer_to(port, get)).startswith(b"HTTP/1.1 200 ")
    for _, writer in opened:
        writer.close()


async def test_garbage_behind_a_request_that_is_being_answered_is_the_last_of_it(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    post = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
    received = await answer_to(port, post + b"and more than it said")
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"Host and one Content-Length.") == 1
    assert b"HTTP/1.1 200 " not in received
    assert [each for each in caplog.records if each.exc_info] == []


async def test_garbage_behind_an_answer_that_has_begun_is_not_put_into_it(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /begun HTTP/1.1\r\nHost: a\r\n\r\n")
    received = await reader.readuntil(b"first")
    writer.write(b"\x00garbage\r\n\r\n")
    received += await reader.read()
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"second" not in received
    writer.close()
