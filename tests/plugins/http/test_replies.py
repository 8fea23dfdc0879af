"""Replies of every form, however the bytes are cut; replies that are none; limits."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.contract import FailureKind
from plugins.http import client as client_module
from plugins.http.client import Client
from tests.plugins.http.raw import (
    ASK,
    WAYS,
    Line,
    RawServer,
    fails_as,
    failure,
    fetch,
    soon,
    started,
    streamed,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024

# Bytes → status, body, and whether the connection serves another call.
FORMS: dict[str, tuple[bytes, int, bytes, bool]] = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "chunked": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200, b"hello", True),
    "extensions": (CHUNKED + b"5;a=b\r\nhello\r\n0;c\r\n\r\n", 200, b"hello", True),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", 200, b"hello", True),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        True,
    ),
    "no_content": (b"HTTP/1.1 204 None\r\n\r\n", 204, b"", True),
    "not_modified": (b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    "refusal": (b"HTTP/1.1 429 Slow\r\nContent-Length: 2\r\n\r\n{}", 429, b"{}", True),
    "no_reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
    "until_close": (b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello", 200, b"hello", False),
    "http_1_0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
    "says_close": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        False,
    ),
    "surplus_interim": (
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 100 Go\r\n\r\n",
        200,
        b"hello",
        False,
    ),
    "surplus": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 ",
        200,
        b"hello",
        False,
    ),
}
NOT_HTTP = {
    "other": b"ICY 200 OK\r\n\r\n",
    "tls_alert": b"\x15\x03\x01\x00\x02\x02\x16",
    "bare_lf": b"HTTP/1.1 200 OK\ncontent-length: 1\n\na",
    "folded": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 1\r\n\r\na",
    "two_lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "length_and_chunked": CHUNKED[:-2] + b"content-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "negative_length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "huge_length": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    "bad_chunk": CHUNKED + b"zz\r\nabc\r\n",
    "upgrade": b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nabc",
    "short": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
    "large_header": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\ncontent-length: 1\r\n\r\na",
    "many_headers": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"content-length: 1\r\n\r\na",
}
BROKEN = {
    "nothing": b"",
    "half_head": b"HTTP/1.1 200 OK\r\nx",
    "half_chunks": CHUNKED + b"5\r\nhel",
}
ENDLESS = {
    "header": (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 4096),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 512),
    "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 128),
    "trailer": (CHUNKED + b"1\r\na\r\n0\r\nx: ", b"y" * 4096),
    "extension": (CHUNKED + b"1;", b"y" * 4096),
}
ways = pytest.mark.parametrize("way", WAYS)
cuts = pytest.mark.parametrize("slices", [0, 1], ids=["at_once", "byte_by_byte"])


def saying(*replies: bytes, slices: int = 0) -> RawServer:
    """A server that answers the connections' requests in turn, and closes after the last."""

    async def play(line: Line) -> None:
        for reply in replies:
            await line.request()
            await line.say(reply, slices=slices)

    return RawServer(play)


@ways
@cuts
@pytest.mark.parametrize("form", FORMS)
async def test_reply_is_read(form: str, way: str, slices: int) -> None:
    reply, status, body, kept = FORMS[form]
    async with saying(*[reply] * (2 if kept else 1), slices=slices) as server:
        client = await started(server.base_url)
        for _ in range(2):
            exchange, found = await WAYS[way](client)
            assert (exchange.status, found) == (status, body)
            if form == "surplus_interim":
                assert exchange.header("x") == "y"
        assert server.total == (1 if kept else 2)
        await client.close()


async def test_headers_are_found_by_lower_case_name() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-Id: one\r\nx-ID: two\r\nX-Odd: \xe9\r\nX-None:\r\n"
    async with saying(head + b"content-length: 0\r\n\r\n") as server:
        client = await started(server.base_url)
        exchange, _ = await fetch(client)
        assert [exchange.header(name) for name in ("x-id", "x-odd", "x-none", "x-gone")] == [
            "one",
            None,
            "",
            None,
        ]
        await client.close()


async def test_trailers_are_no_headers() -> None:
    async with saying(CHUNKED + b"1\r\na\r\n0\r\nX-Late: 1\r\n\r\n") as server:
        client = await started(server.base_url)
        exchange, _ = await fetch(client)
        assert exchange.header("x-late") is None
        await client.close()


@ways
@pytest.mark.parametrize("form", NOT_HTTP)
async def test_reply_that_is_not_http(form: str, way: str) -> None:
    async with saying(NOT_HTTP[form]) as server:
        client = await started(server.base_url)
        error = await fails_as(FailureKind.PROTOCOL, WAYS[way](client))
        assert ("cut short" in error.message) == (form == "short")
        await server.until(lambda server: server.open == 0)
        await client.close()


@ways
@pytest.mark.parametrize("form", BROKEN)
async def test_connection_that_ends_too_soon(form: str, way: str) -> None:
    async with saying(BROKEN[form]) as server:
        client = await started(server.base_url)
        await fails_as(FailureKind.UPSTREAM, WAYS[way](client))
        await client.close()


@ways
@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel"])
async def test_connection_that_is_reset(sent: bytes, way: str) -> None:
    async def play(line: Line) -> None:
        await line.request()
        await line.say(sent)
        await asyncio.sleep(0.02)  # a reset would overtake what was said
        line.reset()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        error = await fails_as(FailureKind.UPSTREAM, WAYS[way](client))
        assert "broke" in error.message
        await client.close()


async def test_what_came_before_the_end_is_delivered() -> None:
    async with saying(CHUNKED + b"5\r\nhello\r\n5\r\nwor") as server:
        client = await started(server.base_url)
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        heard = b""
        with pytest.raises(Exception, match="broke"):
            while True:
                heard += await exchange.read(soon()) or b""
        assert heard == b"hellowor"
        with pytest.raises(Exception, match="broke"):
            await exchange.read(soon())
        await client.close()


@ways
@pytest.mark.parametrize("form", ENDLESS)
async def test_what_is_no_body_has_a_limit(form: str, way: str) -> None:
    begins, goes_on = ENDLESS[form]
    sent = 0

    async def play(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.say(begins)
        while True:
            await line.say(goes_on)
            sent += len(goes_on)

    async with RawServer(play) as server:
        client = await started(server.base_url)
        await fails_as(FailureKind.PROTOCOL, WAYS[way](client))
        await server.until(lambda server: server.open == 0)
        assert sent < 16 * MIB, "what the system's buffers hold, not more"
        await client.close()


@ways
@pytest.mark.parametrize("chunk", [b"x" * 16_384, b"xy"], ids=["large_chunks", "small_chunks"])
async def test_answer_without_end(way: str, chunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ANSWER_BYTES_MAX", MIB)
    data = b"%x\r\n%b\r\n" % (len(chunk), chunk) * (65_536 // len(chunk))

    async def play(line: Line) -> None:
        await line.request()
        await line.say(CHUNKED)
        while True:
            await line.say(data)

    async with RawServer(play) as server:
        client = await started(server.base_url)
        error = await fails_as(FailureKind.PROTOCOL, WAYS[way](client))
        assert "too large" in error.message
        await server.until(lambda server: server.open == 0)
        await client.close()


async def test_answer_of_very_small_chunks_is_put_together() -> None:
    body = bytes(range(256)) * 800
    data = b"".join(b"2\r\n%b\r\n" % body[n : n + 2] for n in range(0, len(body), 2))
    async with saying(CHUNKED + data + b"0\r\n\r\n") as server:
        client = await started(server.base_url)
        assert (await fetch(client))[1] == body
        await client.close()


async def test_refusal_is_read_as_far_as_it_is_worth() -> None:
    async def play(line: Line) -> None:
        await line.request()
        await line.say(CHUNKED.replace(b"200 OK", b"500 No"))
        while True:
            await line.say(b"4000\r\n%b\r\n" % (b"x" * 0x4000))

    async with RawServer(play) as server:
        client = await started(server.base_url)
        exchange, body = await fetch(client)
        assert exchange.status == 500
        assert 64 * 1024 < len(body) < 2 * MIB
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        body = await exchange.read_all(soon())
        assert 64 * 1024 <= len(body) < 2 * MIB
        await exchange.close()
        await server.until(lambda server: server.open == 0)
        await client.close()


async def test_sender_waits_for_a_reader_that_is_behind() -> None:
    size = 32 * MIB
    sent = 0
    full = asyncio.Event()

    async def play(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            line.writer.write(b"x" * 65_536)
            sent += 65_536
            try:
                await asyncio.wait_for(line.writer.drain(), 0.3)
            except TimeoutError:
                full.set()
                await line.writer.drain()
        await line.gone()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        await asyncio.wait_for(full.wait(), 20)
        assert sent < size, "the rest waits at the sender"
        assert exchange.waiting_bytes < MIB
        body = await exchange.rest()
        assert len(body) == size
        # The connection that was made to wait serves another call.
        assert server.open == 1
        await client.close()


bodies = st.binary(max_size=300)


@given(
    body=bodies,
    chunks=st.lists(st.integers(1, 60), max_size=12),
    slices=st.integers(1, 200),
    interim=st.booleans(),
)
@settings(max_examples=40)
def test_any_body_in_any_chunks_in_any_slices(
    body: bytes, chunks: list[int], slices: int, interim: bool
) -> None:
    reply = b"HTTP/1.1 102 Wait\r\n\r\n" * interim + CHUNKED
    rest = body
    for size in chunks:
        if piece := rest[:size]:
            reply += b"%x\r\n%b\r\n" % (len(piece), piece)
        rest = rest[size:]
    if rest:
        reply += b"%x\r\n%b\r\n" % (len(rest), rest)
    reply += b"0\r\n\r\n"

    async def run() -> None:
        async with saying(reply, reply, slices=slices) as server:
            client: Client = await started(server.base_url)
            assert (await fetch(client))[1] == body
            assert (await streamed(client))[1] == body
            assert server.total == 1
            await client.close()

    asyncio.run(run())


async def test_closed_exchange_has_no_more() -> None:
    async with saying(CHUNKED + b"5\r\nhello\r\n") as server:
        client = await started(server.base_url)
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        assert await exchange.read(soon()) == b"hello"
        await exchange.close()
        await exchange.close()
        assert (await failure(exchange.read(soon()))).kind is FailureKind.UPSTREAM
        await client.close()
