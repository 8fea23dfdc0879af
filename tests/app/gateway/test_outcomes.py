"""The table of how calls end, row by row: outcome, what is charged, what the house bears."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import UpstreamFailed
from app.ledger.audit import audit
from plugins.chat import AssistantMessage, Choice
from plugins.contract import (
    AdapterError,
    Completion,
    Event,
    FailureKind,
    InferenceCall,
    Started,
    Usage,
    UsageReport,
)
from tests.app.gateway.conftest import (
    COST,
    Bench,
    MakeBench,
    Scripted,
    good,
    report,
    serve,
    words,
)
from tests.app.gateway.test_serve import text_of

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


async def house(bench: Bench, account: str) -> int:
    """What a house account has borne; the books add up besides."""
    found = await bench.database.write(audit)
    assert found.problems == []
    return -found.house[account]


async def rows(bench: Bench, *columns: str) -> list[tuple[object, ...]]:
    """Columns of all calls' usage and settlements, oldest first."""
    return await bench.database.read(
        f"SELECT {', '.join(columns)} FROM usage u JOIN series s ON s.id = u.series_id"
        " JOIN settlements t ON t.call_id = u.call_id ORDER BY u.call_id"
    )


def answering(finish: str, *said: str, usage: UsageReport | None = None) -> Scripted:
    """An offer whose answer ends with this reason, streamed or whole."""

    async def script(order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("up-1")
        if order.stream:
            for chunk in words(*said, finish=finish):
                yield chunk
        else:
            message = AssistantMessage(role="assistant", content="".join(said))
            yield Completion([Choice(index=0, message=message, finish_reason=finish)])
        yield usage or report()

    return Scripted("a", script)


async def run(bench: Bench, **asked: object) -> None:
    """A call to its end, whatever comes of it."""
    call = bench.call(**asked)  # type: ignore[arg-type]  # passed on
    pump = await serve(bench, call)
    if call.streamed:
        await text_of(pump)


@both
async def test_an_answer_that_a_limit_cut_off_is_truncated(
    make_bench: MakeBench, stream: bool
) -> None:
    bench = make_bench(answering("length", "Hel", "lo"))
    await run(bench, stream=stream)
    assert await bench.usage_rows() == [("truncated", "a", 1, 10, 5, COST)]


@both
async def test_an_answer_without_output_is_empty_and_its_input_is_charged(
    make_bench: MakeBench, stream: bool
) -> None:
    bench = make_bench(answering("stop", usage=report(10, 0)))
    await run(bench, stream=stream)
    assert await bench.usage_rows() == [("empty", "a", 1, 10, 0, 10 * 1000)]


async def test_a_failed_attempt_s_known_cost_is_the_house_s(make_bench: MakeBench) -> None:
    """The payer pays the one that delivered, once (I12)."""

    async def dies(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("up-1")
        raise AdapterError(
            FailureKind.CRASHED, "it died", usage=Usage(input_tokens=4, output_tokens=3)
        )

    bench = make_bench(Scripted("bad", dies), Scripted("worse", dies), Scripted("good", good))
    await run(bench)
    assert await bench.usage_rows() == [("completed", "good", 3, 10, 5, COST)]
    lost = 2 * (4 * 1000 + 3 * 2000)
    assert await rows(bench, "lost_nano_usd", "t.cost_nano_usd") == [(lost, COST)]
    assert await house(bench, "failover_loss") == lost


async def test_where_all_attempts_fail_the_house_bears_what_they_cost(
    make_bench: MakeBench,
) -> None:
    async def dies(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("up-1")
        raise AdapterError(FailureKind.CRASHED, "it died", usage=Usage(input_tokens=4))

    bench = make_bench(Scripted("bad", dies), Scripted("worse", dies))
    with pytest.raises(UpstreamFailed):
        await run(bench)
    assert await rows(bench, "outcome", "state", "lost_nano_usd") == [("failed", "void", 8000)]
    assert await house(bench, "failover_loss") == 8000


async def test_a_lost_cost_that_cannot_be_true_is_not_booked(make_bench: MakeBench) -> None:
    async def lies(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("up-1")
        raise AdapterError(FailureKind.CRASHED, "it died", usage=Usage(input_tokens=10**30))

    bench = make_bench(Scripted("bad", lies), Scripted("good", good))
    await run(bench)
    assert await house(bench, "failover_loss") == 0


async def test_a_client_that_left_is_charged_what_was_delivered_where_nobody_reports(
    make_bench: MakeBench,
) -> None:
    going = asyncio.Event()

    async def breaks(_order: InferenceCall) -> AsyncIterator[Event]:
        yield words("one", finish=None)[0]
        await going.wait()
        yield words("two", finish=None)[0]
        raise AdapterError(FailureKind.UPSTREAM, "it broke")

    bench = make_bench(Scripted("a", breaks), Scripted("other", good))
    pump = await serve(bench, bench.call(stream=True))
    pump.leave()
    going.set()
    await bench.settled()
    cost = 3 * 1000 + 2 * 2000
    assert await bench.usage_rows() == [("client_left", "a", 1, 3, 2, cost)]
    assert await rows(bench, "estimated", "state") == [(1, "settled")]


async def test_nobody_fails_over_for_a_client_that_left(make_bench: MakeBench) -> None:
    going = asyncio.Event()

    async def breaks(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("up-1")
        await going.wait()
        raise AdapterError(FailureKind.UPSTREAM, "it broke")

    other = Scripted("other", good)
    adapter = Scripted("a", breaks)
    bench = make_bench(adapter, other)
    pump = bench.gateway.serve(bench.call())
    await adapter.asked()
    pump.leave()
    going.set()
    await bench.settled()
    assert other.orders == []
    assert await bench.usage_rows() == [("client_left", "a", 1, 0, 0, 0)]


@both
async def test_a_cost_that_comes_later_is_held_until_it_is_known(
    make_bench: MakeBench, stream: bool
) -> None:
    bench = make_bench(Scripted("a", good), billed_later=("a",))
    call = bench.call(stream=stream)
    pump = await serve(bench, call)
    if stream:
        await text_of(pump)
    assert bench.ledger.open_holds() == 1
    assert await bench.usage_rows() == []
    (pending,) = await bench.ledger.pending_costs("a", 10)
    assert (pending.call_id, pending.upstream_id) == (call.id, "up-1")
    await bench.ledger.resolve_cost(call.id, 4321)
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, 4321)]


async def test_a_cost_that_never_comes_is_unknown_and_charged_to_nobody(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(Scripted("a", good), billed_later=("a",))
    call = bench.call()
    await serve(bench, call)
    (pending,) = await bench.ledger.pending_costs("a", 10)
    await bench.ledger.give_up_expired(pending.give_up_at_ms - 1)
    assert bench.ledger.open_holds() == 1
    await bench.ledger.give_up_expired(pending.give_up_at_ms)
    assert await bench.usage_rows() == [("cost_unknown", "a", 1, 10, 5, 0)]
    await bench.ledger.resolve_cost(call.id, 4321)
    assert await house(bench, "forgiven") == 4321


@pytest.mark.parametrize("fails", [False, True])
async def test_a_client_that_left_is_charged_later_too(make_bench: MakeBench, fails: bool) -> None:
    """What the provider worked on for nobody; a failure of its own before anything came is free."""
    going = asyncio.Event()

    async def slow(order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("up-1")
        await going.wait()
        if fails:
            raise AdapterError(FailureKind.UPSTREAM, "it broke")
        async for event in good(order):
            yield event

    bench = make_bench(Scripted("a", slow), billed_later=("a",))
    call = bench.call(stream=True)
    pump = bench.gateway.serve(call)
    async with asyncio.timeout(10):
        while not call.bound:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    pump.leave()
    going.set()
    async with asyncio.timeout(10):
        while bench.gateway.in_flight.running:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    if not fails:
        await bench.ledger.resolve_cost(call.id, 77)
    cost = 0 if fails else 77
    assert await rows(bench, "outcome", "t.cost_nano_usd") == [("client_left", cost)]
    assert bench.ledger.open_holds() == 0


async def test_a_provider_that_gives_no_id_is_charged_at_our_price(make_bench: MakeBench) -> None:
    async def nameless(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("")
        for chunk in words("Hello"):
            yield chunk
        yield report()

    bench = make_bench(Scripted("a", nameless), billed_later=("a",))
    await run(bench)
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, COST)]


async def test_a_failover_from_one_that_bills_later_settles_at_once(make_bench: MakeBench) -> None:
    async def dies(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started("up-1")
        raise AdapterError(FailureKind.UPSTREAM, "it broke")

    bench = make_bench(Scripted("a", dies), Scripted("b", good), billed_later=("a",))
    await run(bench)
    assert await bench.usage_rows() == [("completed", "b", 2, 10, 5, COST)]
    assert await bench.ledger.pending_costs("a", 10) == []
