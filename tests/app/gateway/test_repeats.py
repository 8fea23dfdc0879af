"""Calls under one Idempotency-Key, where they meet: in the transaction that places the hold."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from app.errors import Unprocessable, UpstreamFailed
from app.ledger.entries import IdempotencyKey
from app.ledger.idempotency import Answered, InFlight
from plugins.contract import AdapterError, Event, FailureKind, InferenceCall, Started
from tests.app.gateway.conftest import COST, Bench, MakeBench, Scripted, good, serve, words
from tests.app.gateway.test_serve import text_of


def key(name: str = "k", body: bytes = b"b") -> IdempotencyKey:
    return IdempotencyKey(key=name, request_hash=body.ljust(32, b"."))


async def stored(bench: Bench) -> list[tuple[object, ...]]:
    return await bench.database.read("SELECT key, status, answer FROM idempotency ORDER BY key")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_answer_is_kept_with_the_settlement(make_bench: MakeBench, stream: bool) -> None:
    bench = make_bench(Scripted("a", good))
    pump = await serve(bench, bench.call(stream=stream, key=key()))
    if stream:
        await text_of(pump)
    ((_, status, answer),) = await stored(bench)
    assert status == 200
    assert isinstance(answer, bytes)
    assert b'"content":"Hello"' in answer
    with pytest.raises(Answered):
        await serve(bench, bench.call(stream=stream, key=key()))
    with pytest.raises(Unprocessable):
        await serve(bench, bench.call(stream=stream, key=key(body=b"other")))
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, COST)]


async def test_of_many_at_once_one_is_carried_out(make_bench: MakeBench) -> None:
    going = asyncio.Event()

    async def slow(order: InferenceCall) -> AsyncIterator[Event]:
        await going.wait()
        async for event in good(order):
            yield event

    adapter = Scripted("a", slow)
    bench = make_bench(adapter)
    racing = [
        asyncio.create_task(serve(bench, bench.call(key=key(f"k{number % 10}"))))
        for number in range(200)
    ]
    async with asyncio.timeout(20):
        while sum(task.done() for task in racing) < 190:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    going.set()
    ends = await asyncio.gather(*racing, return_exceptions=True)
    kinds = Counter(type(end).__name__ for end in ends)
    assert kinds == {"Pump": 10, "InFlight": 190}
    assert len(adapter.orders) == 10
    assert len(await bench.usage_rows()) == 10


async def test_a_failure_frees_the_key(make_bench: MakeBench) -> None:
    async def fails(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("up-1")
        raise AdapterError(FailureKind.UPSTREAM, "it broke")

    adapter = Scripted("a", fails)
    bench = make_bench(adapter)
    with pytest.raises(UpstreamFailed):
        await serve(bench, bench.call(key=key()))
    assert await stored(bench) == []
    adapter.script = good
    await serve(bench, bench.call(key=key()))
    assert [row[1] for row in await stored(bench)] == [200]


async def test_an_answer_that_broke_off_is_kept_as_that(make_bench: MakeBench) -> None:
    async def breaks(_order: InferenceCall) -> AsyncIterator[Event]:
        yield words("one", finish=None)[0]
        raise AdapterError(FailureKind.UPSTREAM, "it broke")

    bench = make_bench(Scripted("a", breaks))
    call = bench.call(stream=True, key=key())
    with pytest.raises(UpstreamFailed):
        await text_of(await serve(bench, call))
    assert await stored(bench) == [("k", 502, f"{call.id} broke off".encode())]


async def test_a_stream_whose_client_left_is_kept_whole(make_bench: MakeBench) -> None:
    going = asyncio.Event()

    async def slow(order: InferenceCall) -> AsyncIterator[Event]:
        yield words("Hel", finish=None)[0]
        await going.wait()
        async for event in good(order):
            yield event

    bench = make_bench(Scripted("a", slow))
    pump = await serve(bench, bench.call(stream=True, key=key()))
    pump.leave()
    going.set()
    await bench.settled()
    ((_, status, answer),) = await stored(bench)
    assert status == 200
    assert isinstance(answer, bytes)
    assert b'"content":"HelHello"' in answer


async def test_a_call_that_died_with_a_cost_to_come_is_not_made_again(
    make_bench: MakeBench,
) -> None:
    """After a crash: the provider is asked by its id, so a repeat could be a second charge (I4)."""
    going = asyncio.Event()

    async def hangs(order: InferenceCall) -> AsyncIterator[Event]:
        async for event in good(order):
            yield event
            await going.wait()

    bench = make_bench(Scripted("a", hangs), billed_later=("a",))
    call = bench.call(stream=True, key=key())
    bench.gateway.serve(call)
    async with asyncio.timeout(10):
        while not call.bound:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    with pytest.raises(InFlight):
        await serve(bench, bench.call(stream=True, key=key()))
    await bench.ledger.recover()  # as the next process does
    assert await stored(bench) == [("k", 502, b"")]
    with pytest.raises(Answered):
        await serve(bench, bench.call(stream=True, key=key()))
    await bench.ledger.resolve_cost(call.id, 4321)
    going.set()
    await bench.settled()
    costs = await bench.database.read("SELECT cost_nano_usd FROM settlements")
    assert costs == [(4321,)]
