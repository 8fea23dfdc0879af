"""Ends of a call: what the client gets, what is charged, and what the usage row says."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import (
    Internal,
    InvalidRequest,
    NotFound,
    OutOfCredits,
    RateLimited,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from app.gateway.call import CallState
from app.gateway.pump import Pump
from plugins.contract import (
    AdapterError,
    Event,
    FailureKind,
    InferenceCall,
    Started,
    Usage,
    UsageReport,
)
from tests.app.gateway.conftest import COST, MakeBench, Scripted, good, report, serve, words


async def chunks_only(_order: InferenceCall) -> AsyncIterator[Event]:
    for chunk in words("Hel", "lo"):
        yield chunk
    yield report()


def failing(kind: FailureKind, *before: Event, usage: Usage | None = None) -> Scripted:
    async def script(_order: InferenceCall) -> AsyncIterator[Event]:
        for event in before:
            yield event
        raise AdapterError(kind, f"it was {kind}", retry_after_s=7.2, usage=usage)

    return Scripted("bad", script)


async def text_of(pump: Pump) -> str:
    text = ""
    while (deltas := await pump.take(5)) is not None:
        text += "".join(d.delta.content for d in deltas if isinstance(d.delta.content, str))
    return text


async def test_a_plain_answer_is_settled_before_it_is_given(make_bench: MakeBench) -> None:
    bench = make_bench(Scripted("a", good))
    pump = await serve(bench, bench.call())
    assert pump.choices[0].message.content == "Hello"
    assert pump.call.state is CallState.SETTLED
    assert bench.ledger.open_holds() == 0
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, COST)]


async def test_a_plain_answer_is_put_together_from_chunks(make_bench: MakeBench) -> None:
    bench = make_bench(Scripted("a", chunks_only))
    pump = await serve(bench, bench.call())
    assert pump.choices[0].message.content == "Hello"
    assert pump.choices[0].finish_reason == "stop"


async def test_a_stream_is_settled_before_its_end(make_bench: MakeBench) -> None:
    bench = make_bench(Scripted("a", good))
    pump = await serve(bench, bench.call(stream=True))
    assert await text_of(pump) == "Hello"
    assert bench.ledger.open_holds() == 0
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, COST)]


@pytest.mark.parametrize("stream", [False, True])
async def test_failover_charges_the_one_that_delivered(make_bench: MakeBench, stream: bool) -> None:
    bench = make_bench(failing(FailureKind.CONNECT, Started()), Scripted("good", good))
    pump = await serve(bench, bench.call(stream=stream))
    if stream:
        assert await text_of(pump) == "Hello"
    else:
        assert pump.choices[0].message.content == "Hello"
    assert await bench.usage_rows() == [("completed", "good", 2, 10, 5, COST)]


async def test_a_plain_answer_fails_over_after_chunks_nobody_saw(make_bench: MakeBench) -> None:
    bench = make_bench(
        failing(FailureKind.CRASHED, *words("lost", finish=None)), Scripted("g", good)
    )
    pump = await serve(bench, bench.call())
    assert pump.choices[0].message.content == "Hello"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FailureKind.CONNECT, UpstreamFailed),
        (FailureKind.PROTOCOL, UpstreamFailed),
        (FailureKind.AUTH, UpstreamFailed),
        (FailureKind.CRASHED, UpstreamFailed),
        (FailureKind.TIMEOUT, UpstreamTimeout),
        (FailureKind.RATE_LIMITED, RateLimited),
        (FailureKind.OVERLOADED, Unavailable),
        (FailureKind.LOADING, Unavailable),
        (FailureKind.BAD_REQUEST, InvalidRequest),
        (FailureKind.CONTEXT_LENGTH, InvalidRequest),
    ],
)
async def test_a_failure_before_the_first_byte_costs_nothing(
    make_bench: MakeBench, kind: FailureKind, error: type[Exception]
) -> None:
    bench = make_bench(failing(kind))
    with pytest.raises(error):
        await serve(bench, bench.call(stream=True))
    assert bench.ledger.open_holds() == 0
    assert await bench.usage_rows() == [("failed", "bad", 1, 0, 0, 0)]


async def test_the_callers_mistake_is_not_tried_elsewhere(make_bench: MakeBench) -> None:
    second = Scripted("second", good)
    bench = make_bench(failing(FailureKind.BAD_REQUEST), second)
    with pytest.raises(InvalidRequest, match="it was bad_request"):
        await serve(bench, bench.call())
    assert second.orders == []


async def test_a_failure_after_the_first_byte_charges_what_was_delivered(
    make_bench: MakeBench,
) -> None:
    second = Scripted("second", good)
    bench = make_bench(failing(FailureKind.CONNECT, *words("one", "two", finish=None)), second)
    pump = await serve(bench, bench.call(stream=True))
    with pytest.raises(UpstreamFailed):
        await text_of(pump)
    assert second.orders == []
    prompt_tokens = len("hello there") // 4 + 1
    cost = prompt_tokens * 1000 + 2 * 2000
    assert await bench.usage_rows() == [("failed_partial", "bad", 1, prompt_tokens, 2, cost)]


async def test_a_crash_that_knows_its_usage_charges_that(make_bench: MakeBench) -> None:
    known = Usage(input_tokens=3, output_tokens=1)
    bench = make_bench(failing(FailureKind.CRASHED, *words("one", finish=None), usage=known))
    pump = await serve(bench, bench.call(stream=True))
    with pytest.raises(UpstreamFailed):
        await text_of(pump)
    assert await bench.usage_rows() == [("failed_partial", "bad", 1, 3, 1, 5000)]


async def test_an_answer_without_its_usage_is_a_protocol_error(make_bench: MakeBench) -> None:
    async def silent(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started()

    bench = make_bench(Scripted("a", silent))
    with pytest.raises(UpstreamFailed):
        await serve(bench, bench.call())


async def test_out_of_credits_dispatches_nothing(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter, credit_nano_usd=10_000)
    with pytest.raises(OutOfCredits) as caught:
        await serve(bench, bench.call())
    assert caught.value.retryable is False
    assert adapter.orders == []
    assert await bench.usage_rows() == []


async def test_money_held_by_others_is_waited_for(make_bench: MakeBench) -> None:
    """64 calls at once on credit for 20: each one settles for less than it held, so all fit."""
    bench = make_bench(Scripted("a", good), credit_nano_usd=8_000_000)
    pumps = await asyncio.gather(*(serve(bench, bench.call()) for _ in range(64)))
    assert [pump.call.state for pump in pumps] == [CallState.SETTLED] * 64
    rows = await bench.usage_rows()
    assert sum(int(str(row[5])) for row in rows) == 64 * COST


async def test_the_limit_that_the_hold_pays_for_is_sent(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter, credit_nano_usd=1_200_000)
    await serve(bench, bench.call(max_tokens=None))
    sent = adapter.orders[0].chat
    held = 1_200_000 - 1000 * (100 + 256 + 16)
    assert sent.max_tokens == held // 2000
    await serve(bench, bench.call(max_tokens=None, max_completion_tokens=7))
    assert adapter.orders[1].chat.max_completion_tokens == 7
    await serve(bench, bench.call(max_tokens=900, max_completion_tokens=7))
    assert adapter.orders[2].chat.max_completion_tokens == 7
    assert adapter.orders[2].chat.max_tokens == 7


async def test_overload_and_unknown_models_are_refused_before_money(make_bench: MakeBench) -> None:
    bench = make_bench(Scripted("a", good), calls_max=0)
    with pytest.raises(Unavailable):
        await serve(bench, bench.call())
    bench = make_bench(Scripted("b", good))
    with pytest.raises(NotFound):
        await serve(bench, bench.call(model="acme/none"))
    assert bench.gateway.in_flight.running == 0


async def test_the_drain_breaks_off_what_does_not_end(make_bench: MakeBench) -> None:
    async def endless(_order: InferenceCall) -> AsyncIterator[Event]:
        yield words("one", finish=None)[0]
        await asyncio.sleep(3600)

    bench = make_bench(Scripted("a", endless))
    pump = await serve(bench, bench.call(stream=True))
    assert await bench.gateway.drain(0.05) == 1
    with pytest.raises(Unavailable, match="shutting down"):
        await text_of(pump)
    assert bench.ledger.open_holds() == 0
    assert [row[0] for row in await bench.usage_rows()] == ["failed_partial"]
    with pytest.raises(Unavailable):
        await serve(bench, bench.call())


async def test_generators_are_closed_in_every_case(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter)
    for stream in (False, True):
        pump = await serve(bench, bench.call(stream=stream))
        if stream:
            await text_of(pump)
    assert adapter.closed_generators == 2


async def test_a_provider_that_reports_more_than_was_held_never_breaks_the_stop(
    make_bench: MakeBench,
) -> None:
    async def greedy(_order: InferenceCall) -> AsyncIterator[Event]:
        yield words("x")[0]
        yield UsageReport(Usage(input_tokens=10, output_tokens=10**9))

    bench = make_bench(Scripted("a", greedy), credit_nano_usd=10_000_000)
    await serve(bench, bench.call())
    assert [row[5] for row in await bench.usage_rows()] == [10_000_000]


@pytest.mark.parametrize("tokens", [-1, 10**30])
async def test_a_report_that_cannot_be_true_is_replaced_by_an_estimate(
    make_bench: MakeBench, tokens: int
) -> None:
    async def mad(_order: InferenceCall) -> AsyncIterator[Event]:
        for chunk in words("one", "two"):
            yield chunk
        yield UsageReport(Usage(input_tokens=tokens, output_tokens=1))

    bench = make_bench(Scripted("a", mad))
    pump = await serve(bench, bench.call(stream=True))
    assert await text_of(pump) == "onetwo"
    assert await bench.usage_rows() == [("completed", "a", 1, 3, 2, 3 * 1000 + 2 * 2000)]


async def test_a_provider_that_never_ends_is_cut_off(make_bench: MakeBench) -> None:
    async def endless(_order: InferenceCall) -> AsyncIterator[Event]:
        while True:
            yield words("again", finish=None)[0]

    adapter = Scripted("a", endless)
    bench = make_bench(adapter)
    pump = await serve(bench, bench.call(stream=True, max_tokens=20))
    with pytest.raises(UpstreamFailed):
        await text_of(pump)
    ((outcome, *_, pieces, _cost),) = await bench.usage_rows()
    assert (outcome, adapter.closed_generators) == ("failed_partial", 1)
    assert pieces == 20  # what it sent past the limit is not paid for


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_in_an_adapter_is_a_failed_attempt(make_bench: MakeBench, stream: bool) -> None:
    async def buggy(_order: InferenceCall) -> AsyncIterator[Event]:
        yield Started()
        raise KeyError("oops")

    bench = make_bench(Scripted("bad", buggy), Scripted("good", good))
    pump = await serve(bench, bench.call(stream=stream))
    if stream:
        assert await text_of(pump) == "Hello"
    assert bench.ledger.open_holds() == 0
    assert await bench.usage_rows() == [("completed", "good", 2, 10, 5, COST)]


async def test_a_fault_of_ours_costs_nothing_and_keeps_no_hold(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("app.gateway.tries.work_order", broken)
    bench = make_bench(Scripted("a", good))
    with pytest.raises(Internal):
        await serve(bench, bench.call())
    assert bench.ledger.open_holds() == 0
    assert await bench.usage_rows() == [("failed", "a", 1, 0, 0, 0)]
