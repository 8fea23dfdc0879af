"""The poll for costs over real HTTP: what is asked, what is settled, and every fault of the API."""

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.billing import resolution
from app.billing.resolution import BillingApi, Resolution
from app.errors import NotFound
from app.ledger.entries import HoldState, PendingCost, Settlement
from app.ledger.store import LedgerUnavailable
from tests.app.ledger.books import HandClock
from tests.upstreams.billing import FAULTS, PlayedBilling

HALF_AN_HOUR_MS = 1_800_000
NO_ANSWER = sorted(FAULTS.keys() - {"normal", "later"})


class Waiting:
    """The two verbs of the ledger that a poll uses, over a list of calls that wait."""

    def __init__(self, **waiting: list[str]) -> None:
        self.waiting = [
            PendingCost(
                call_id=f"call-{upstream_id}",
                provider=provider,
                upstream_id=upstream_id,
                served_at_ms=at,
                give_up_at_ms=at + HALF_AN_HOUR_MS,
            )
            for provider, ids in waiting.items()
            for at, upstream_id in enumerate(ids)
        ]
        self.resolved: dict[str, int] = {}
        self.refuses: dict[str, Exception] = {}

    async def pending_costs(self, provider: str, limit: int) -> list[PendingCost]:
        return [
            pending
            for pending in self.waiting
            if pending.provider == provider and pending.call_id not in self.resolved
        ][:limit]

    async def resolve_cost(self, call_id: str, cost_nano_usd: int) -> Settlement:
        await asyncio.sleep(0)
        if call_id in self.refuses:
            raise self.refuses[call_id]
        assert call_id not in self.resolved
        self.resolved[call_id] = cost_nano_usd
        return Settlement(call_id=call_id, state=HoldState.SETTLED, cost_nano_usd=cost_nano_usd)


@pytest.fixture
async def billing() -> AsyncIterator[PlayedBilling]:
    async with PlayedBilling() as played:
        yield played


def asking(ledger: Waiting, billing: PlayedBilling, api_key: str | None = None) -> Resolution:
    api = BillingApi(provider="mock", url=billing.url, api_key=api_key)
    return Resolution(cast(Any, ledger), [api], HandClock(0), "Turnpike/test")


async def test_each_good_cost_is_settled_once(billing: PlayedBilling) -> None:
    ledger = Waiting(mock=["a", "b", "c"], other=["a"])
    billing.costs = {"a": "1200", "c": "0.5", "z": "7"}
    poller = asking(ledger, billing, "secret-1")
    assert await poller.poll() == 2
    assert ledger.resolved == {"call-a": 1200, "call-c": 1}
    billing.costs["b"] = "0"
    assert await poller.poll() == 1
    assert await poller.poll() == 0
    assert ledger.resolved["call-b"] == 0
    assert billing.asked == [["a", "b", "c"], ["b"]]  # and nothing where nothing is missing
    sent = billing.headers[0]
    assert sent["authorization"] == "Bearer secret-1"
    assert sent["accept-encoding"] == "identity"
    assert sent["content-type"] == "application/json"
    assert sent["user-agent"] == "Turnpike/test"


async def test_no_key_is_sent_where_none_is_set(billing: PlayedBilling) -> None:
    await asking(Waiting(mock=["a"]), billing).poll()
    assert "authorization" not in billing.headers[0]


@pytest.mark.parametrize("fault", NO_ANSWER)
async def test_a_fault_changes_nothing_and_the_next_poll_asks_again(
    billing: PlayedBilling,
    fault: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fault == "slow":
        monkeypatch.setattr(resolution, "ANSWER_S_MAX", 1)
    ledger = Waiting(mock=["a"])
    billing.costs["a"] = "12"
    billing.script(fault)
    poller = asking(ledger, billing, "secret-1")
    with caplog.at_level(logging.WARNING):
        assert await poller.poll() == 0
    assert ledger.resolved == {}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the billing API of mock" in caplog.text
    assert "secret-1" not in caplog.text
    assert await poller.poll() == 1
    assert ledger.resolved == {"call-a": 12}
    assert billing.paths == ["/billing", "/billing"]  # a redirect was not followed


async def test_later_is_no_fault(billing: PlayedBilling, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Waiting(mock=["a"])
    billing.costs["a"] = "12"
    billing.script("later")
    poller = asking(ledger, billing)
    assert [await poller.poll(), await poller.poll()] == [0, 1]
    assert caplog.records == []


async def test_an_api_that_cannot_be_reached_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with PlayedBilling() as billing:
        ledger = Waiting(mock=["a"])
        poller = asking(ledger, billing)
    assert await poller.poll() == 0
    assert "ConnectError" in caplog.text


async def test_the_environment_s_proxies_are_not_for_this(
    billing: PlayedBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    billing.costs["a"] = "12"
    assert await asking(Waiting(mock=["a"]), billing).poll() == 1


async def test_bad_and_conflicting_figures_are_told(
    billing: PlayedBilling, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Waiting(mock=["a", "b", "c"])
    billing.costs = {"b": "-1", "c": "5"}
    billing.costs["a"] = '7}, {"requestId": "a", "costNanoUsd": 8'
    assert await asking(ledger, billing).poll() == 2
    assert ledger.resolved == {"call-a": 7, "call-c": 5}
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(told) == 2
    assert "two costs, such as a:" in told[0]
    assert "such as b:" in told[1]


async def test_one_slow_provider_does_not_keep_the_others_waiting(
    billing: PlayedBilling, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resolution, "POLL_S_MAX", 1)
    async with PlayedBilling() as slow:
        slow.script("slow", "slow")
        billing.costs["a"] = "3"
        ledger = Waiting(mock=["a"], slow=["b"])
        apis = [BillingApi(provider="slow", url=slow.url)]
        apis.append(BillingApi(provider="mock", url=billing.url))
        polling = asyncio.create_task(Resolution(cast(Any, ledger), apis, HandClock(0), "t").poll())
        async with asyncio.timeout(10):
            while not ledger.resolved:  # noqa: ASYNC110  (the stand-in has no event)
                await asyncio.sleep(0.005)
            assert not polling.done()
            assert await polling == 1
    assert ledger.resolved == {"call-a": 3}
    assert "took too long" in caplog.text


async def test_what_the_ledger_refuses_stops_nothing_else(
    billing: PlayedBilling, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Waiting(mock=["a", "b"])
    ledger.refuses["call-a"] = NotFound("no such call")
    billing.costs = {"a": "1", "b": "2"}
    assert await asking(ledger, billing).poll() == 1
    assert ledger.resolved == {"call-b": 2}
    assert "call call-a: its cost came and was refused" in caplog.text


async def test_a_stopped_ledger_ends_the_poll(billing: PlayedBilling) -> None:
    ledger = Waiting(mock=["a"])
    ledger.refuses["call-a"] = LedgerUnavailable("stopped")
    billing.costs["a"] = "1"
    with pytest.raises(LedgerUnavailable):
        await asking(ledger, billing).poll()


async def test_who_should_have_been_given_up_before_is_not_asked_for(
    billing: PlayedBilling,
) -> None:
    """As after a day's standstill: the ledger gives up next, whatever the provider says now."""
    ledger, clock = Waiting(mock=["a", "b"]), HandClock(HALF_AN_HOUR_MS + 60_000)
    billing.costs = {"a": "1", "b": "2"}
    api = BillingApi(provider="mock", url=billing.url)
    assert await Resolution(cast(Any, ledger), [api], clock, "t").poll() == 1
    assert ledger.resolved == {"call-b": 2}
    assert billing.asked == [["b"]]


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**32))
async def test_twenty_thousand_ids_in_batches_through_faults(seed: int) -> None:
    """Whatever the API does in between, in the end each call has its own cost, exactly."""
    rng = random.Random(seed)
    ids = [f"id-{number}" for number in range(20_000)]
    ledger = Waiting(mock=ids)
    texts = {id_: f"{rng.randrange(10**7)}.{rng.randrange(10)}" for id_ in ids}
    faults = [*NO_ANSWER, "later"]
    async with PlayedBilling() as billing:
        poller = asking(ledger, billing)
        for _ in range(4):
            for id_ in rng.sample(ids, 7_000):
                billing.costs[id_] = rng.choice((texts[id_], texts[id_], "-1", "null", '"x"'))
            billing.script(rng.choice([f for f in faults if f not in ("slow", "huge")]))
            await poller.poll()
        billing.costs = texts
        while ledger.resolved.keys() < {f"call-{id_}" for id_ in ids}:
            assert await poller.poll() > 0
        assert max(len(asked) for asked in billing.asked) == 10_000
        assert all(len(asked) == len(set(asked)) for asked in billing.asked)
    exact = {f"call-{id_}": math.ceil(Fraction(text)) for id_, text in texts.items()}
    assert ledger.resolved == exact
