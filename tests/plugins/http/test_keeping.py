"""Connections that serve one call after another, and those that must not."""

import asyncio

import pytest

from plugins.contract import FailureKind
from plugins.http import pool as pool_module
from plugins.http.client import HttpRequest
from plugins.http.connection import Connection
from tests.plugins.http.raw import (
    ASK,
    Line,
    RawServer,
    fails_as,
    failure,
    fetch,
    soon,
    started,
    streamed,
)

ASK_AGAIN = HttpRequest(target="/things/1", method="GET")


async def answering(line: Line) -> None:
    while True:
        await line.request()
        await line.answer()


async def test_one_after_another_uses_one_connection() -> None:
    async with RawServer(answering) as server:
        client = await started(server.base_url)
        for _ in range(20):
            await fetch(client)
            await streamed(client)
        assert server.total == 1
        await client.close()
        await server.until(lambda server: server.open == 0)


async def test_as_many_connections_as_calls_side_by_side() -> None:
    waiting = 0
    all_here = asyncio.Event()

    async def play(line: Line) -> None:
        nonlocal waiting
        while True:
            await line.request()
            waiting += 1
            if waiting == 100:
                all_here.set()
            await all_here.wait()
            await line.answer()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        await asyncio.gather(*(fetch(client) for _ in range(100)))
        assert server.total == 100
        # All are free again; the one that was freed last serves what comes one after another.
        used = server.total
        for _ in range(5):
            await fetch(client)
        assert server.total == used
        await client.close()


async def test_idle_connections_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_MAX", 3)
    gate = asyncio.Barrier(8)

    async def play(line: Line) -> None:
        while True:
            await line.request()
            await gate.wait()
            await line.answer()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        await asyncio.gather(*(fetch(client) for _ in range(8)))
        await server.until(lambda server: server.open == 3)
        await client.close()


async def test_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_S_MAX", 0.05)
    monkeypatch.setattr(pool_module, "SWEEP_S", 0.02)
    async with RawServer(answering) as server:
        client = await started(server.base_url)
        await fetch(client)
        await server.until(lambda server: server.open == 0)
        await fetch(client)
        assert server.total == 2
        await client.close()


async def test_connection_that_is_too_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(answering) as server:
        client = await started(server.base_url)
        await fetch(client)
        monkeypatch.setattr(pool_module, "IDLE_S_MAX", -1.0)
        await fetch(client)
        assert server.total == 2
        await client.close()


@pytest.mark.parametrize("how", ["close", "reset", "talk"])
async def test_connection_that_ended_between_calls_is_not_used(how: str) -> None:
    """Even where the event loop has not had a moment to notice: a POST must not be lost so."""
    ended = asyncio.Event()

    async def play(line: Line) -> None:
        await line.request()
        await line.answer()
        if how == "talk":
            await line.say(b"HTTP/1.1 408 Too late\r\n\r\n")
            ended.set()
            await line.gone()
        elif how == "reset":
            line.reset()
        ended.set()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        for number in range(1, 6):
            ended.clear()
            _, body = await fetch(client)
            assert body == b"{}"
            await ended.wait()
            assert server.total == number
        await client.close()


async def test_answer_to_nothing_is_never_the_next_answer() -> None:
    async def play(line: Line) -> None:
        for number in (b"1", b"2"):
            await line.request()
            await line.answer(number)
            await line.answer(b"poison")
            await line.gone()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        for _ in range(5):
            assert (await fetch(client))[1] == b"1"
            assert (await streamed(client))[1] == b"1"
        await client.close()


def ending_without_answer(calls: list[str], *, reset: bool) -> RawServer:
    """The first connection answers once, reads another request and ends; others answer."""

    async def play(line: Line) -> None:
        first = not calls
        while True:
            calls.append((await line.request())[0])
            if first and len(calls) == 2:
                if reset:
                    line.reset()
                return
            await line.answer()

    return RawServer(play)


@pytest.mark.parametrize("reset", [False, True])
async def test_post_is_written_once(reset: bool) -> None:
    calls: list[str] = []
    async with ending_without_answer(calls, reset=reset) as server:
        client = await started(server.base_url)
        await fetch(client)
        await fails_as(FailureKind.UPSTREAM, fetch(client))
        assert len(calls) == 2, "the provider may be at work on it"
        await client.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_get_is_written_once_more_when_a_kept_connection_ends(reset: bool) -> None:
    calls: list[str] = []
    async with ending_without_answer(calls, reset=reset) as server:
        client = await started(server.base_url)
        await fetch(client)
        assert (await fetch(client, ASK_AGAIN))[1] == b"{}"
        assert [call.split()[0] for call in calls] == ["POST", "GET", "GET"]
        await client.close()


async def test_get_is_written_once_more_at_most() -> None:
    calls = 0

    async def play(line: Line) -> None:
        nonlocal calls
        calls += 1
        await line.request()
        if calls == 1:
            await line.answer()
            await line.request()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        await fetch(client)
        await fails_as(FailureKind.UPSTREAM, fetch(client, ASK_AGAIN))
        assert calls == 2
        # And never where the connection was new.
        await fails_as(FailureKind.UPSTREAM, fetch(client, ASK_AGAIN))
        assert calls == 3
        await client.close()


async def test_get_that_was_half_answered_is_not_repeated() -> None:
    calls = 0

    async def play(line: Line) -> None:
        nonlocal calls
        await line.request()
        await line.answer()
        await line.request()
        calls += 1
        await line.say(b"HTTP/1.1 2")

    async with RawServer(play) as server:
        client = await started(server.base_url)
        await fetch(client)
        await fails_as(FailureKind.UPSTREAM, fetch(client, ASK_AGAIN))
        assert calls == 1
        await client.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_server_that_hangs_up_at_once(reset: bool) -> None:
    """Also in the moment between connecting and writing: nothing waits for what cannot come."""

    async def play(line: Line) -> None:
        if reset:
            line.reset()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        for _ in range(50):
            error = await failure(fetch(client))
            assert error.kind in (FailureKind.CONNECT, FailureKind.UPSTREAM)
        await server.until(lambda server: server.open == 0)
        await asyncio.sleep(0)
        (pool,) = client._pools.values()
        assert not pool._all
        await client.close()


async def test_early_answer_to_a_request_that_is_still_being_sent() -> None:
    """Such a connection still owes the rest of a body: it must not carry another call."""

    async def play(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.answer(b"no", status=413)
        await line.gone()

    async with RawServer(play) as server:
        client = await started(server.base_url)
        large = HttpRequest(target="/", body=b"x" * 32 * 1024 * 1024)
        exchange, body = await fetch(client, large)
        assert (exchange.status, body) == (413, b"no")
        await server.until(lambda server: server.open == 0)
        await fetch(client, large)
        assert server.total == 2
        await client.close()


async def test_timer_is_set_once_for_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer for each call would be a tenth of what a small one costs."""
    timers = 0
    set_timer = Connection._set_timer

    def counted(connection: Connection, at: float) -> None:
        nonlocal timers
        timers += 1
        set_timer(connection, at)

    monkeypatch.setattr(Connection, "_set_timer", counted)
    async with RawServer(answering) as server:
        client = await started(server.base_url)
        for _ in range(50):
            exchange = await client.stream(ASK, by=soon(60), silence_s=60.0)
            await exchange.read_all(soon(60))
        assert timers == 1
        await client.close()
