"""The half hour in which a cost may come (I15), over a real ledger, a real API and a hand clock."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.billing import resolution
from app.billing.resolution import BillingApi, Resolution
from app.jobs import schedule
from app.jobs.resolve_costs import resolve_costs
from app.jobs.schedule import Crew, Schedule
from app.ledger.entries import HoldState
from app.ledger.time import LedgerClock
from tests.app.ledger.books import START_MS, Books, HandClock, hold, opened, used
from tests.upstreams.billing import PlayedBilling

MINUTE_MS = 60_000
HELD, COST = 5_000, 1_200
DAY_S = 86_400


class Desk:
    """A ledger that can be restarted, a billing API, and the job as the schedule runs it."""

    def __init__(self, path: Path, billing: PlayedBilling) -> None:
        self.books: Books
        self.resolution: Resolution
        self.clock = HandClock()
        self.billing = billing
        self._path = path
        self._open = AsyncExitStack()

    async def start(self) -> None:
        self.books = await self._open.enter_async_context(opened(self._path, self.clock))
        await self.books.ledger.recover()
        api = BillingApi(provider="mock", url=self.billing.url)
        self.resolution = Resolution(self.books.ledger, [api], self.clock, "Turnpike/test")

    async def stop(self) -> None:
        await self._open.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def serve(self, upstream_id: str) -> str:
        """A call that ended now, and whose cost comes later."""
        ledger, now_ms = self.books.ledger, self.clock.ms
        order = hold(HELD, admitted_at_ms=now_ms)
        await ledger.place_hold(order)
        await ledger.bind_request(order.call_id, "mock", upstream_id)
        row = used(order.call_id, at_ms=now_ms)
        await ledger.await_cost(order.call_id, row, give_up_at_ms=now_ms + 30 * MINUTE_MS)
        return order.call_id

    async def tick(self) -> None:
        """The job, once."""
        await resolve_costs(self.resolution, self.books.ledger, self.clock)

    async def ended(self, call_id: str) -> tuple[str, int] | None:
        """How the call's hold ended, and what was charged."""
        rows = await self.books.rows(
            "SELECT state, cost_nano_usd FROM settlements WHERE call_id = ?", call_id
        )
        return rows[0] if rows else None

    async def spent(self) -> tuple[int, int]:
        """What the payer has spent, and what is held."""
        balance = await self.books.ledger.balance("user_ann")
        spent = sum(grant.spent_nano_usd for grant in balance.grants)
        return spent + balance.overage_nano_usd, balance.held_nano_usd


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with PlayedBilling() as billing:
        made = Desk(tmp_path / "turnpike.db", billing)
        await made.start()
        yield made
        assert (await made.books.audit()).problems == []
        await made.stop()


@pytest.mark.parametrize("restarted_at_minute", [None, 15, 30, 31])
@pytest.mark.parametrize(
    ("cost_at_s", "charged"),
    [
        (90, True),
        (29 * 60 + 59, True),
        (30 * 60, True),
        (30 * 60 + 1, False),
        (DAY_S, False),
    ],
)
async def test_the_timeline(
    desk: Desk, cost_at_s: int, charged: bool, restarted_at_minute: int | None
) -> None:
    """Polls on the minute. A placeholder until the cost comes, or until half an hour is over."""
    call_id = await desk.serve("up-1")
    assert await desk.spent() == (0, HELD)
    for minute in [*range(1, 34), 24 * 60, 24 * 60 + 1]:
        desk.clock.ms = START_MS + minute * MINUTE_MS
        if minute == restarted_at_minute:
            await desk.restart()
        if minute * 60 >= cost_at_s:
            desk.billing.costs["up-1"] = str(COST)
        await desk.tick()
        if minute * 60 < min(cost_at_s, 30 * 60):
            assert await desk.ended(call_id) is None
            assert await desk.spent() == (0, HELD)
    if charged:
        assert await desk.ended(call_id) == (HoldState.SETTLED, COST)
        assert await desk.spent() == (COST, 0)
    else:
        assert await desk.ended(call_id) == (HoldState.GAVE_UP, 0)
        assert await desk.spent() == (0, 0)
    assert len(desk.billing.asked) == min(-(-cost_at_s // 60), 30)


async def test_a_cost_after_the_give_up_is_the_house_s(desk: Desk) -> None:
    call_id = await desk.serve("up-1")
    desk.clock.ms += 30 * MINUTE_MS
    await desk.tick()
    desk.clock.ms += DAY_S * 1000
    for _ in range(2):
        late = await desk.books.ledger.resolve_cost(call_id, COST)
        assert (late.state, late.cost_nano_usd) == (HoldState.GAVE_UP, 0)
    assert await desk.spent() == (0, 0)
    forgiven = await desk.books.rows(
        "SELECT sum(amount_nano_usd) FROM entries WHERE kind = 'forgiven' AND subject = ?", call_id
    )
    assert forgiven == [(COST,)]


async def test_a_day_s_standstill_is_no_reason_to_charge(desk: Desk) -> None:
    """The cost was there, we were not: after the half hour nobody is charged any more."""
    call_id = await desk.serve("up-1")
    desk.billing.costs["up-1"] = str(COST)
    await desk.stop()
    desk.clock.ms += DAY_S * 1000
    await desk.start()
    await desk.tick()
    assert await desk.ended(call_id) == (HoldState.GAVE_UP, 0)
    assert desk.billing.asked == []


@pytest.mark.parametrize("fault", ["server_error", "garbage", "cut", "redirect", "later"])
async def test_an_api_that_fails_to_the_end_costs_the_payer_nothing(desk: Desk, fault: str) -> None:
    call_id = await desk.serve("up-1")
    desk.billing.costs["up-1"] = str(COST)
    for _ in range(30):
        desk.clock.ms += MINUTE_MS
        desk.billing.script(fault)
        await desk.tick()
    assert await desk.ended(call_id) == (HoldState.GAVE_UP, 0)


async def test_a_call_that_died_with_its_server_is_asked_for(desk: Desk) -> None:
    """Its id was bound when the headers came; the process ended before the call did (I13)."""
    order = hold(HELD)
    await desk.books.ledger.place_hold(order)
    await desk.books.ledger.bind_request(order.call_id, "mock", "up-9")
    await desk.restart()
    desk.billing.costs["up-9"] = str(COST)
    desk.clock.ms += MINUTE_MS
    await desk.tick()
    assert await desk.ended(order.call_id) == (HoldState.SETTLED, COST)


async def test_a_poll_with_a_fault_of_ours_does_not_stop_the_give_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    call_id = await desk.serve("up-1")
    desk.clock.ms += 30 * MINUTE_MS
    monkeypatch.setattr(resolution, "read_costs", None)
    with caplog.at_level(logging.ERROR):
        await desk.tick()
    assert "the poll for costs failed" in caplog.text
    assert await desk.ended(call_id) == (HoldState.GAVE_UP, 0)


async def test_the_schedule_polls_and_its_stop_ends_a_poll_quietly(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(schedule, "GIVE_UP_EVERY_S", 0.05)
    await desk.serve("up-1")
    desk.billing.costs["up-1"] = str(COST)
    ticking = Schedule(
        Crew(
            database=desk.books.database,
            ledger=desk.books.ledger,
            clock=LedgerClock(desk.clock),
            resolution=desk.resolution,
        )
    )
    ticking.start()
    async with asyncio.timeout(10):
        assert await desk.books.ledger.wait_for_release("user_ann", 9)
        await desk.serve("up-2")
        desk.billing.script(*["slow"] * 100)
        while len(desk.billing.asked) < 2:  # noqa: ASYNC110  (the played API has no event)
            await asyncio.sleep(0.005)
    with caplog.at_level(logging.WARNING):
        ticking.stop()
        while len(asyncio.all_tasks() - desk.billing.tasks) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert len(desk.billing.asked) == 2  # never a second poll beside the first
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert await desk.spent() == (COST, HELD)
