"""Clients that leave: who pays, and when the work ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from plugins.contract import Event, InferenceCall, Price
from tests.app.gateway.conftest import COST, MakeBench, Scripted, good, report, serve, words


async def test_a_client_that_leaves_still_pays_what_the_provider_reports(
    make_bench: MakeBench,
) -> None:
    going = asyncio.Event()

    async def slow(_order: InferenceCall) -> AsyncIterator[Event]:
        yield words("one", finish=None)[0]
        await going.wait()
        for chunk in words("two", "three"):
            yield chunk
        yield report()

    bench = make_bench(Scripted("a", slow))
    pump = await serve(bench, bench.call(stream=True))
    pump.leave()
    going.set()
    await bench.settled()
    assert await bench.usage_rows() == [("client_left", "a", 1, 10, 5, COST)]


async def test_own_hardware_stops_when_the_client_leaves(make_bench: MakeBench) -> None:
    async def engine(order: InferenceCall) -> AsyncIterator[Event]:
        assert order.stop is not None
        yield words("one", finish=None)[0]
        await order.stop.wait()
        yield report(4, 1, compute_ns=2_000_000_000)

    price = Price(compute_per_second=1000)
    bench = make_bench(Scripted("local", engine, price=price, abort_stops_billing=True))
    pump = await serve(bench, bench.call(stream=True))
    pump.leave()
    await bench.settled()
    assert await bench.usage_rows() == [("client_left", "local", 1, 4, 1, 2000)]


async def test_own_hardware_stops_for_a_plain_answer_that_nobody_waits_for(
    make_bench: MakeBench,
) -> None:
    async def engine(order: InferenceCall) -> AsyncIterator[Event]:
        assert order.stop is not None
        yield words("one", finish=None)[0]
        await order.stop.wait()
        yield report(4, 1, compute_ns=2_000_000_000)

    price = Price(compute_per_second=1000)
    adapter = Scripted("local", engine, price=price, abort_stops_billing=True)
    bench = make_bench(adapter)
    pump = bench.gateway.serve(bench.call())
    await adapter.asked()
    pump.leave()
    await bench.settled()
    assert await bench.usage_rows() == [("client_left", "local", 1, 4, 1, 2000)]


async def test_a_client_that_leaves_before_anything_was_sent_costs_nothing(
    make_bench: MakeBench,
) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter)
    bench.gateway.serve(bench.call()).leave()
    await bench.settled()
    assert adapter.orders == []
    assert await bench.usage_rows() == [("client_left", "a", 0, 0, 0, 0)]


async def test_cancelling_the_request_leaves_the_call_to_settle(make_bench: MakeBench) -> None:
    going = asyncio.Event()

    async def slow(order: InferenceCall) -> AsyncIterator[Event]:
        await going.wait()
        async for event in good(order):
            yield event

    adapter = Scripted("a", slow)
    bench = make_bench(adapter)
    request = asyncio.create_task(serve(bench, bench.call()))
    await adapter.asked()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    going.set()
    await bench.settled()
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, COST)]
