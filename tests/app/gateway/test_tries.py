"""Attempts: keys of a pool, circuits, the retry budget, dropped parameters, hedging."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import CallError, PermissionDenied
from app.gateway.retry_budget import AT_ONCE_MIN, RetryBudget
from app.routing.key_pools import ProviderKey
from plugins.contract import AdapterError, Event, FailureKind, InferenceCall, Price, Started
from plugins.preferences import Hedge, ProviderPreferences
from tests.app.gateway.conftest import COST, MakeBench, Script, Scripted, good, serve
from tests.app.routing.world import HandClock


def key(name: str, provider: str = "a") -> ProviderKey:
    return ProviderKey(provider=provider, name=name, secret=f"s-{name}")


def failing(kind: FailureKind, **details: float) -> Script:
    async def fail(order: InferenceCall) -> AsyncIterator[Event]:
        if order.attempt_id:
            raise AdapterError(kind, "it did not go well", **details)  # type: ignore[arg-type]
        yield Started()

    return fail


def with_keys(bad: dict[str, FailureKind]) -> Script:
    """Fails for some keys."""

    async def script(order: InferenceCall) -> AsyncIterator[Event]:
        if order.api_key in bad:
            raise AdapterError(bad[order.api_key], "not with this key", retry_after_s=9.0)
        async for event in good(order):
            yield event

    return script


@pytest.mark.parametrize("kind", [FailureKind.RATE_LIMITED, FailureKind.AUTH])
async def test_another_key_of_the_same_provider_takes_over(
    make_bench: MakeBench, kind: FailureKind
) -> None:
    adapter, other = Scripted("a", with_keys({"s-1": kind})), Scripted("b", good)
    bench = make_bench(adapter, other, pool=[key("1"), key("2")])
    await serve(bench, bench.call())
    assert [order.api_key for order in adapter.orders] == ["s-1", "s-2"]
    await serve(bench, bench.call())
    assert adapter.orders[-1].api_key == "s-2"
    assert other.orders == []
    state = "resting" if kind is FailureKind.RATE_LIMITED else "refused"
    assert [each.state for each in bench.keys.states("a")] == [state, "ready"]
    assert bench.health.healthy(("a", "acme/tiny"))  # the key's fault, not the offer's


async def test_when_all_keys_are_limited_the_answer_says_for_how_long(
    make_bench: MakeBench,
) -> None:
    limited = {"s-1": FailureKind.RATE_LIMITED, "s-2": FailureKind.RATE_LIMITED}
    adapter = Scripted("a", with_keys(limited))
    bench = make_bench(adapter, pool=[key("1"), key("2")])
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            await serve(bench, bench.call())
        assert caught.value.status == 429
        assert caught.value.retry_after_s == 9
    assert len(adapter.orders) == 2  # the second call asked nobody


async def test_an_open_circuit_is_skipped_and_is_the_last_resort(make_bench: MakeBench) -> None:
    first, second = Scripted("a", good), Scripted("b", failing(FailureKind.UPSTREAM))
    bench = make_bench(first, second)
    for _ in range(5):
        bench.health.failed(("a", "acme/tiny"))
    await serve(bench, bench.call())
    assert (len(first.orders), len(second.orders)) == (1, 1)  # b came first, and failed
    assert bench.health.healthy(("a", "acme/tiny"))  # and a is back


async def test_retries_stop_when_their_budget_is_used(make_bench: MakeBench) -> None:
    first, second = Scripted("a", failing(FailureKind.UPSTREAM)), Scripted("b", slow(0.5))
    bench = make_bench(first, second)
    bench.health.failed = lambda *_: None  # type: ignore[method-assign]  # no circuit

    async def ask() -> int:
        try:
            await serve(bench, bench.call())
        except CallError as error:
            return error.status
        return 200

    ended = await asyncio.gather(*(ask() for _ in range(40)))
    retries = len(second.orders)
    assert AT_ONCE_MIN <= retries <= max(AT_ONCE_MIN, 0.2 * 40)
    assert ended.count(200) == retries
    assert ended.count(502) == 40 - retries


async def test_one_retry_at_a_time_is_always_allowed(make_bench: MakeBench) -> None:
    first, second = Scripted("a", failing(FailureKind.UPSTREAM)), Scripted("b", good)
    bench = make_bench(first, second)
    bench.health.failed = lambda *_: None  # type: ignore[method-assign]  # no circuit
    for _ in range(20):
        await serve(bench, bench.call())
    assert len(second.orders) == 20


def test_the_budget_is_a_share_of_the_last_ten_seconds() -> None:
    clock = HandClock()
    budget = RetryBudget(clock)
    for _ in range(100):
        budget.started()
    assert sum(budget.take() for _ in range(100)) == 20
    for _ in range(20):
        budget.ended()
    assert budget.take()  # three at a time are always allowed
    clock.pass_seconds(11)
    assert sum(budget.take() for _ in range(100)) == AT_ONCE_MIN - 1
    assert all(0 <= budget.pause_s(1) <= 0.025 for _ in range(100))
    assert all(0 <= budget.pause_s(2) <= 0.05 for _ in range(100))


async def test_offers_that_the_payer_switched_off_do_not_use_up_the_tries(
    make_bench: MakeBench,
) -> None:
    adapters = [Scripted(name, good) for name in "abcde"]
    bench = make_bench(*adapters)
    bench.standings.providers_off["user_1"] = dict.fromkeys("abc", "not here")
    await serve(bench, bench.call())
    assert [len(each.orders) for each in adapters] == [0, 0, 0, 1, 0]


async def test_where_all_are_switched_off_it_is_said(make_bench: MakeBench) -> None:
    bench = make_bench(*(Scripted(name, good) for name in "abcde"))
    bench.standings.providers_off["user_1"] = dict.fromkeys("abcde", "not here")
    with pytest.raises(PermissionDenied, match="not here"):
        await serve(bench, bench.call())


async def test_benign_parameters_are_dropped_and_named(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good, supported_params=frozenset({"temperature"}))
    bench = make_bench(adapter)
    call = bench.call(temperature=0.5, user="u", metadata={"a": "b"}, provider=None)
    await serve(bench, call)
    assert sorted(call.dropped_params) == ["metadata", "user"]
    sent = adapter.orders[0].chat
    assert sorted(sent.given_params()) == ["max_tokens", "stream", "temperature"]
    assert call.request.user == "u"  # the client's own request is left as it was


async def test_routing_fields_are_not_sent_on(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter)
    wish = ProviderPreferences(order=["a"])
    await serve(bench, bench.call(provider=wish, models=["acme/other"]))
    assert not adapter.orders[0].request.provider
    assert not adapter.orders[0].request.models


async def test_a_limit_that_only_the_context_sets_is_not_sent(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter, credit_nano_usd=10**12)
    await serve(bench, bench.call(max_tokens=None))
    assert adapter.orders[0].request.output_tokens_limit() is None


async def test_a_limit_that_the_hold_sets_is_sent(make_bench: MakeBench) -> None:
    adapter = Scripted("a", good)
    bench = make_bench(adapter, credit_nano_usd=1_200_000)
    await serve(bench, bench.call(max_tokens=None))
    limit = adapter.orders[0].request.output_tokens_limit()
    assert limit is not None
    assert limit < 1000


def slow(seconds: float, then: Script = good) -> Script:
    async def script(order: InferenceCall) -> AsyncIterator[Event]:
        await asyncio.sleep(seconds)
        async for event in then(order):
            yield event

    return script


async def test_a_hedge_takes_the_answer_that_begins_first_and_closes_the_other(
    make_bench: MakeBench,
) -> None:
    never, quick = Scripted("a", slow(60)), Scripted("b", good)
    bench = make_bench(never, quick, hedge_after_s=0.02)
    call = bench.call()
    await serve(bench, call)
    assert call.offer.provider == "b"
    assert never.closed_generators == 1
    assert [each.status for each in call.tries] == ["hedged"]
    assert await bench.usage_rows() == [("completed", "b", 2, 10, 5, COST)]


async def test_a_hedge_is_not_begun_when_the_first_answers_in_time(
    make_bench: MakeBench,
) -> None:
    first, second = Scripted("a", good), Scripted("b", good)
    bench = make_bench(first, second)
    wish = ProviderPreferences(hedge=Hedge(after_ms=5000))
    await serve(bench, bench.call(provider=wish))
    assert second.orders == []
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, COST)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hedge_whose_first_wins_late_closes_the_second(
    make_bench: MakeBench, stream: bool
) -> None:
    first, second = Scripted("a", slow(0.1)), Scripted("b", slow(60))
    bench = make_bench(first, second, hedge_after_s=0.01)
    pump = await serve(bench, bench.call(stream=stream))
    while stream and await pump.take(5.0) is not None:
        pass
    assert (first.closed_generators, second.closed_generators) == (1, 1)
    assert await bench.usage_rows() == [("completed", "a", 2, 10, 5, COST)]


async def test_when_both_of_a_hedge_fail_the_rest_is_tried(make_bench: MakeBench) -> None:
    down = slow(0.05, failing(FailureKind.UPSTREAM))
    third = Scripted("c", good)
    bench = make_bench(Scripted("a", down), Scripted("b", down), third, hedge_after_s=0.01)
    await serve(bench, bench.call())
    assert len(third.orders) == 1


async def test_a_free_offer_needs_no_credit(make_bench: MakeBench) -> None:
    bench = make_bench(Scripted("a", good, price=Price(free=True)), credit_nano_usd=0)
    await serve(bench, bench.call())
    assert await bench.usage_rows() == [("completed", "a", 1, 10, 5, 0)]
