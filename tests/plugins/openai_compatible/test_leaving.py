"""Leaving a call: the upstream learns of it, and the pool survives any number of them."""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from plugins.conformance import run
from plugins.contract import Adapter, AdapterError, Chunk, Event
from tests.plugins.conftest import make_call
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

CANCELS = 2_000


def events_of(adapter: Adapter, stream: bool, **call: Any) -> AsyncGenerator[Event, None]:
    return cast("AsyncGenerator[Event, None]", adapter.infer(make_call(stream, **call)))


async def test_closing_the_generator_closes_the_connection(
    adapter: Adapter, provider: PlayedProvider
) -> None:
    provider.script(Scene(words=1000, gap_s=0.02))
    events = events_of(adapter, True)
    async for event in events:
        if isinstance(event, Chunk):
            break
    await events.aclose()
    await provider.wait_until(lambda: provider.books[-1].gone, 1.0)
    assert provider.books[-1].completion_tokens < 20
    assert provider.connections_open == 0


async def test_cancelling_between_events_closes_the_connection(
    adapter: Adapter, provider: PlayedProvider
) -> None:
    provider.script(Scene(words=1000, hang_after=5))
    task = asyncio.create_task(run(adapter, make_call(True)))
    await provider.wait_until(lambda: bool(provider.books))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await provider.wait_until(lambda: provider.books[-1].gone, 1.0)


@pytest.mark.parametrize("stream", [False, True])
async def test_request_given_up_before_its_headers_ends_upstream_too(
    adapter: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    provider.script("slow_headers")
    events = events_of(adapter, stream, first_event_s=0.3, idle_s=0.3)
    with pytest.raises(AdapterError):
        await anext(events)
    # The HTTP client ends it after the next power of two seconds, see plugins.http.client.
    await provider.wait_until(lambda: provider.books[-1].gone, 2.0)


async def test_call_fails_when_the_adapter_is_closed_under_it(
    adapter: Adapter, provider: PlayedProvider
) -> None:
    provider.script("slow_headers")
    task = asyncio.create_task(run(adapter, make_call()))
    await provider.wait_until(lambda: bool(provider.books))
    await adapter.close()
    with pytest.raises(AdapterError):
        await asyncio.wait_for(task, 2.0)
    with pytest.raises(AdapterError):
        await run(adapter, make_call())


async def test_two_thousand_cancels_leave_the_pool_whole(
    adapter: Adapter, provider: PlayedProvider
) -> None:
    """Bar B8 in small: cancels at any moment, most of them while connecting."""
    dice = random.Random(7)
    provider.always = Scene(words=5, gap_s=0.002)

    async def one(turns: int, stream: bool) -> None:
        task = asyncio.create_task(run(adapter, make_call(stream)))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns > 30:
            await asyncio.sleep(dice.random() * 0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for _ in range(CANCELS // 50):
        await asyncio.gather(*(one(dice.randrange(40), dice.random() < 0.5) for _ in range(50)))
    before = len(provider.books)
    outcomes = await asyncio.gather(*(run(adapter, make_call(bool(n % 2))) for n in range(32)))
    assert len({outcome.text for outcome in outcomes}) == 1
    assert len(provider.books) == before + 32
    await provider.wait_until(lambda: provider.connections_open <= 64)
