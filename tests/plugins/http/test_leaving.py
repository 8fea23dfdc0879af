"""Leaving at any moment: the other side sees it at once, and nothing is left behind."""

import asyncio
import gc
import os
import random
import ssl
import time
from collections.abc import Awaitable

import pytest

from plugins.contract import AdapterError, FailureKind
from plugins.http.client import Client, HttpRequest
from tests.plugins.http.raw import (
    ASK,
    WAYS,
    Line,
    RawServer,
    fails_as,
    fetch,
    soon,
    started,
    streamed,
)

CANCELS = 10_000
SIDE_BY_SIDE = 64
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
ways = pytest.mark.parametrize("way", WAYS)


async def silent_at(line: Line, stage: str, reached: asyncio.Event) -> None:
    """Answer up to a stage, and then say nothing until the client has gone."""
    await line.request()
    if stage != "head":
        await line.say(CHUNKED + b"5\r\nhello\r\n")
    reached.set()
    await line.gone()


async def left(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@ways
@pytest.mark.parametrize("stage", ["head", "body"])
async def test_cancelling_closes_the_connection_at_once(way: str, stage: str) -> None:
    reached = asyncio.Event()
    async with RawServer(lambda line: silent_at(line, stage, reached)) as server:
        client = await started(server.base_url)
        task = asyncio.ensure_future(WAYS[way](client))
        await reached.wait()
        await left(task)
        await server.until(lambda server: server.open == 0)
        await client.close()


@ways
@pytest.mark.parametrize("stage", ["head", "body"])
async def test_running_out_of_time_closes_the_connection_at_once(way: str, stage: str) -> None:
    reached = asyncio.Event()
    async with RawServer(lambda line: silent_at(line, stage, reached)) as server:
        client = await started(server.base_url)
        began = time.monotonic()
        await fails_as(FailureKind.TIMEOUT, WAYS[way](client, by_s=0.2))
        assert time.monotonic() - began > 0.15
        await server.until(lambda server: server.open == 0)
        await client.close()


async def test_silence_has_a_limit_of_its_own() -> None:
    async def play(line: Line) -> None:
        await line.request()
        await line.say(CHUNKED)
        for _ in range(6):
            await asyncio.sleep(0.1)
            await line.say(b"1\r\nx\r\n")
        await line.gone()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        began = time.monotonic()
        await fails_as(FailureKind.TIMEOUT, fetch(client, by_s=60, silence_s=0.4))
        assert 0.9 < time.monotonic() - began < 20, "it is counted from the last byte"
        await server.until(lambda server: server.open == 0)
        await client.close()


@ways
async def test_drip_does_not_outlast_the_deadline(way: str) -> None:
    async def play(line: Line) -> None:
        await line.request()
        await line.say(CHUNKED)
        while True:
            await line.say(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    async with RawServer(play) as server:
        client = await started(server.base_url)
        await fails_as(FailureKind.TIMEOUT, WAYS[way](client, by_s=0.3))
        await server.until(lambda server: server.open == 0)
        await client.close()


async def test_flood_does_not_outlast_the_deadline() -> None:
    """Something to read is always there, so the reader never waits."""

    async def play(line: Line) -> None:
        await line.request()
        await line.say(CHUNKED)
        while True:
            await line.say(b"4000\r\n%b\r\n" % (b"x" * 0x4000))

    async with RawServer(play) as server:
        client = await started(server.base_url)
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        by = soon(0.2)

        async def read_on() -> None:
            while True:
                await exchange.read(by)
                exchange._read_bytes = 0  # how much came is not what this test is about
                await asyncio.sleep(0)

        await fails_as(FailureKind.TIMEOUT, read_on())
        await server.until(lambda server: server.open == 0)
        await client.close()


async def test_deadlines_that_move_back_and_forth() -> None:
    """The one timer of a connection serves a short wait after a long one."""

    async def play(line: Line) -> None:
        while True:
            await line.request()
            await line.say(CHUNKED + b"5\r\nhello\r\n")
            await asyncio.sleep(0.2)
            await line.say(b"0\r\n\r\n")

    async with RawServer(play) as server:
        client = await started(server.base_url)
        for by_s in (60.0, 10.0, 60.0, 0.05):
            exchange = await client.stream(ASK, by=soon(60), silence_s=60.0)
            assert await exchange.read(soon(60)) == b"hello"
            if by_s > 1:
                assert await exchange.read(soon(by_s)) is None
            else:
                await fails_as(FailureKind.TIMEOUT, exchange.read(soon(by_s)))
        assert server.total == 1
        await client.close()


async def test_leaving_a_stream_closes_the_connection() -> None:
    reached = asyncio.Event()
    async with RawServer(lambda line: silent_at(line, "body", reached)) as server:
        client = await started(server.base_url)
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        assert await exchange.read(soon()) == b"hello"
        await exchange.close()
        await server.until(lambda server: server.open == 0)
        await client.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_leaving_while_connecting(tls: bool) -> None:
    """A server that takes the connection and then does not speak TLS."""
    reached = asyncio.Event()

    async def play(line: Line) -> None:
        reached.set()
        await line.gone()

    async with RawServer(play) as server:
        base_url = server.base_url.replace("http:", "https:") if tls else server.base_url
        client = await started(base_url)
        task = asyncio.ensure_future(fetch(client))
        await reached.wait()
        await left(task)
        await server.until(lambda server: server.open == 0)
        await client.close()


async def test_running_out_of_time_while_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(Line.gone) as server:
        client = await started(server.base_url.replace("http:", "https:"))
        await fails_as(FailureKind.TIMEOUT, fetch(client, by_s=0.2))
        monkeypatch.setattr("plugins.http.client.CONNECT_S_MAX", 0.2)
        await fails_as(FailureKind.CONNECT, fetch(client))
        await server.until(lambda server: server.open == 0)
        await client.close()


@ways
@pytest.mark.parametrize("stage", ["connect", "head", "body"])
async def test_closing_the_client_fails_what_is_in_progress(way: str, stage: str) -> None:
    reached = asyncio.Event()

    async def play(line: Line) -> None:
        if stage == "connect":
            reached.set()
            await line.gone()
        else:
            await silent_at(line, stage, reached)

    async with RawServer(play) as server:
        connecting = stage == "connect"
        client = await started(
            server.base_url.replace("http:", "https:") if connecting else server.base_url
        )
        task = asyncio.ensure_future(WAYS[way](client))
        await reached.wait()
        await asyncio.sleep(0.02)
        await client.close()
        await fails_as(FailureKind.UPSTREAM, asyncio.wait_for(task, 5.0))
        await server.until(lambda server: server.open == 0)
        await fails_as(FailureKind.UPSTREAM, WAYS[way](client))


async def storm(client: Client, cancels: int, dice: random.Random) -> int:
    """Cancel so many calls, each at a moment of its own; how many had been answered by then."""
    answered = 0

    async def one() -> None:
        nonlocal answered
        ask: Awaitable[object] = (fetch if dice.random() < 0.5 else streamed)(client)
        task = asyncio.ensure_future(ask)
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        if dice.random() < 0.4:
            await asyncio.sleep(dice.random() * 0.004)
        if task.done():
            answered += 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for _ in range(cancels // SIDE_BY_SIDE + 1):
        await asyncio.gather(*(one() for _ in range(SIDE_BY_SIDE)))
    return answered


async def dawdling(line: Line) -> None:
    """Answers in steps, so that a cancel can fall between any two of them."""
    dice = random.Random(3)
    while True:
        await line.request()
        await asyncio.sleep(dice.random() * 0.001)
        await line.say(CHUNKED + b"5\r\nhello\r\n")
        await asyncio.sleep(dice.random() * 0.001)
        await line.say(b"0\r\n\r\n")


@pytest.mark.slow
async def test_ten_thousand_cancels_leave_nothing_behind() -> None:
    """Bar B8: next call answered, connections closed, no socket, task or connection kept."""
    async with RawServer(dawdling) as server:
        client = await started(server.base_url)
        await fetch(client)
        tasks = len(asyncio.all_tasks())
        answered = await storm(client, CANCELS, random.Random(7))
        assert answered < CANCELS
        exchange, body = await fetch(client)
        assert (exchange.status, body) == (200, b"hello")
        bodies = await asyncio.gather(*(streamed(client) for _ in range(SIDE_BY_SIDE)))
        assert {body for _, body in bodies} == {b"hello"}
        await server.until(lambda server: server.open <= SIDE_BY_SIDE)
        (pool,) = client._pools.values()
        assert len(pool._all) == server.open, "the pool knows of no connection that is closed"
        await client.close()
        await server.until(lambda server: server.open == 0)
        assert not pool._all
        assert len(asyncio.all_tasks()) <= tasks


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files of Linux")
async def test_cancels_while_tls_is_agreed_leave_no_file_open(
    tls_server: ssl.SSLContext, ca_file: str
) -> None:
    async with RawServer(dawdling, tls_server) as server:
        client = await started(server.base_url, ca_file=ca_file)
        await fetch(client)
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        await storm(client, 600, random.Random(11))
        assert (await fetch(client))[1] == b"hello"
        await client.close()
        await server.until(lambda server: server.open == 0)
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before


async def test_closing_an_exchange_ends_its_reader_s_wait() -> None:
    reached = asyncio.Event()
    async with RawServer(lambda line: silent_at(line, "body", reached)) as server:
        client = await started(server.base_url)
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        assert await exchange.read(soon()) == b"hello"
        reading = asyncio.ensure_future(exchange.read(soon()))
        await asyncio.sleep(0)
        await exchange.close()
        await fails_as(FailureKind.UPSTREAM, asyncio.wait_for(reading, 5.0))
        await client.close()


async def test_cancel_that_comes_with_the_answer_keeps_the_connection() -> None:
    """The exchange was over: there is nothing to close."""

    async def play(line: Line) -> None:
        while True:
            await line.request()
            await line.answer()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        await exchange.read_all(soon())
        with pytest.raises(asyncio.CancelledError):
            try:
                raise asyncio.CancelledError
            finally:
                await exchange.close()
        await fetch(client)
        assert server.total == 1
        await client.close()


async def test_late_reader_of_a_finished_answer_is_not_late() -> None:
    async def play(line: Line) -> None:
        await line.request()
        await line.answer(b"hello")
        await line.gone()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        exchange = await client.stream(HttpRequest(target="/"), by=soon(), silence_s=60.0)
        assert exchange.complete
        assert await exchange.read(soon(-1)) == b"hello"
        assert await exchange.read(soon(-1)) is None
        await client.close()


async def test_reading_after_the_deadline_fails_even_when_data_waits() -> None:
    reached = asyncio.Event()
    async with RawServer(lambda line: silent_at(line, "body", reached)) as server:
        client = await started(server.base_url)
        exchange = await client.stream(ASK, by=soon(), silence_s=60.0)
        with pytest.raises(AdapterError):
            await exchange.read(soon(-1))
        await server.until(lambda server: server.open == 0)
        await client.close()
