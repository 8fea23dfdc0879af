"""The table of jobs, and that the scheduler wakes them, whatever the time of day does."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.billing.resolution import Resolution
from app.jobs import schedule
from app.jobs.give_up import give_up
from app.jobs.schedule import Crew, Schedule, table
from app.ledger.time import LedgerClock
from tests.app.ledger.books import START_MS, Books, HandClock, hold, opened
from tests.app.ledger.two_clocks import TwoClocks


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with opened(tmp_path / "ledger.db") as found:
        yield found


def crew_of(books: Books, machine: TwoClocks) -> Crew:
    return Crew(
        database=books.database,
        ledger=books.ledger,
        clock=LedgerClock(machine),
        resolution=Resolution(books.ledger, [], books.clock, "Turnpike/test"),
    )


async def mark(books: Books) -> int:
    rows = await books.rows("SELECT high_ms FROM ledger_clock")
    return int(rows[0][0])


async def test_expired_holds_are_ended_and_named(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    await books.ledger.place_hold(hold(10, call_id="expired", expires_at_ms=START_MS))
    await books.ledger.place_hold(hold(10, call_id="running", expires_at_ms=START_MS + 1))
    with caplog.at_level(logging.WARNING):
        await give_up(books.ledger, books.clock)
    assert books.ledger.open_holds() == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the hold of call expired expired; nothing was charged"
    ]


async def test_nothing_is_given_up_while_the_time_is_in_doubt(books: Books) -> None:
    await books.ledger.place_hold(hold(10, expires_at_ms=START_MS))
    doubtful = HandClock()
    doubtful.suspended = True
    await give_up(books.ledger, doubtful)
    assert books.ledger.open_holds() == 1


async def test_the_schedule_wakes_the_jobs_again_and_again(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "GIVE_UP_EVERY_S", 0.05)
    ticking = Schedule(crew_of(books, TwoClocks()))
    ticking.start()
    for call_id in ("a", "b"):
        await books.ledger.place_hold(hold(10, call_id=call_id, expires_at_ms=START_MS))
        async with asyncio.timeout(10):
            assert await books.ledger.wait_for_release("user_ann", 9)
    ticking.stop()
    await books.ledger.place_hold(hold(10, call_id="c", expires_at_ms=START_MS))
    assert not await books.ledger.wait_for_release("user_ann", 0.2)


async def test_the_tick_writes_down_how_far_time_has_come(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "TICK_EVERY_S", 0.01)
    machine = TwoClocks(START_MS + 5_000)
    ticking = Schedule(crew_of(books, machine))
    ticking.start()
    try:
        for step_ms in (0, 7_000):
            machine.passes(step_ms)
            async with asyncio.timeout(10):
                while await mark(books) != machine.wall_ms:  # noqa: ASYNC110  (a row has no event)
                    await asyncio.sleep(0.005)
    finally:
        ticking.stop()


async def test_a_tick_that_fails_is_not_the_last(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = asyncio.Semaphore(0)

    async def failing(*_: object) -> None:
        ticks.release()
        raise OSError("the disk is full")

    monkeypatch.setattr(schedule, "TICK_EVERY_S", 0.01)
    monkeypatch.setattr(schedule, "tick", failing)
    ticking = Schedule(crew_of(books, TwoClocks()))
    ticking.start()
    async with asyncio.timeout(10):
        await ticks.acquire()
        await ticks.acquire()
    ticking.stop()
    assert "the tick failed" in caplog.text


async def test_jobs_do_not_wait_for_a_clock_that_was_set_back(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To APScheduler a step back of a day looks like a job that is due a day after its time."""
    monkeypatch.setattr(schedule, "TICK_EVERY_S", 0.05)
    ticking = Schedule(crew_of(books, TwoClocks()))
    ticking.start()
    try:
        await books.ledger.place_hold(hold(10, expires_at_ms=START_MS))
        for job in ticking._scheduler.get_jobs():
            job.modify(next_run_time=datetime.now(UTC) + timedelta(days=1))
        async with asyncio.timeout(10):
            assert await books.ledger.wait_for_release("user_ann", 9)
        soon = datetime.now(UTC) + timedelta(hours=2)
        assert [job.name for job in ticking._scheduler.get_jobs() if job.next_run_time > soon] == []
    finally:
        ticking.stop()


async def test_every_job_has_a_name_of_its_own_and_an_interval(books: Books) -> None:
    jobs = table(crew_of(books, TwoClocks()))
    assert len({job.name for job in jobs}) == len(jobs)
    assert all(10 <= job.every_s <= 86_400 for job in jobs)
