"""The table of jobs, and that the scheduler wakes them, whatever the time of day does."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app.billing.resolution import Resolution
from app.job_runs import JobRuns
from app.jobs import schedule
from app.jobs.give_up import give_up
from app.jobs.schedule import Crew, FromNow, Schedule, table
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


def test_a_clock_that_steps_ahead_by_decades_skips_its_runs_at_once() -> None:
    """A machine without a battery for its clock starts in 1970. To count the runs that were missed
    since then, one by one, would hold up everything for hours.
    """
    started = datetime(1970, 1, 1, tzinfo=UTC)
    scheduler = AsyncIOScheduler(timezone="UTC")
    job = scheduler.add_job(lambda: None, FromNow(5), next_run_time=started)
    begun = time.monotonic()
    missed = job._get_run_times(datetime(2026, 11, 22, tzinfo=UTC))
    assert time.monotonic() - begun < 1
    assert missed == [started]


async def test_when_each_job_last_ended_well_is_known(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(schedule, "GIVE_UP_EVERY_S", 0.05)
    monkeypatch.setattr(schedule, "TICK_EVERY_S", 0.05)
    monkeypatch.setattr(schedule, "tick", failing)
    ns = [0]
    crew = dataclasses.replace(
        crew_of(books, TwoClocks()), runs=JobRuns(monotonic_ns=lambda: ns[0])
    )
    ticking = Schedule(crew)
    assert {run.name for run in crew.runs} == {"tick", *(job.name for job in table(crew))}
    ns[0] = 3600 * 10**9
    first = {run.name: run for run in crew.runs}
    sweep = "resolve costs, then give up expired holds"
    assert first[sweep].late_s == pytest.approx(3599.95)
    assert first["forget answers"].late_s == pytest.approx(3000)
    ticking.start()
    try:
        async with asyncio.timeout(10):
            while True:
                now = {run.name: run for run in crew.runs}
                if now[sweep].late_s == 0 and now["tick"].failures > 1:
                    break
                await asyncio.sleep(0.01)
    finally:
        ticking.stop()
    assert now["tick"].late_s > 3599, "it runs, and never ends well"
    assert now[sweep].failures == 0


async def test_a_job_of_which_nothing_is_heard_is_told_once(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    ns = [0]
    crew = dataclasses.replace(
        crew_of(books, TwoClocks()), runs=JobRuns(monotonic_ns=lambda: ns[0])
    )
    crew.runs.expect("look at the disk", 5)  # as somebody else's
    ticking = Schedule(crew)
    with caplog.at_level(logging.INFO):
        ns[0] = 3700 * 10**9
        crew.runs.ran("catch up months")
        ticking._tell_of_late()
        ticking._tell_of_late()
        told = sorted(record.getMessage() for record in caplog.records)
        assert [text.split("'")[1] for text in told] == [
            "look at the disk",
            "resolve costs, then give up expired holds",
            "tick",
        ]
        assert "for 61 minutes" in told[0] and "turnpike restart" in told[0]
        caplog.clear()
        for name in ("look at the disk", "tick"):
            crew.runs.ran(name)
        ticking._tell_of_late()
    assert sorted(record.getMessage().split("'")[1] for record in caplog.records) == [
        "look at the disk",
        "tick",
    ]


async def test_every_job_has_a_name_of_its_own_and_an_interval(books: Books) -> None:
    jobs = table(crew_of(books, TwoClocks()))
    assert len({job.name for job in jobs}) == len(jobs)
    assert all(10 <= job.every_s <= 86_400 for job in jobs)


async def test_to_be_stopped_while_a_job_runs_is_no_error(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    monkeypatch.setattr(
        schedule, "table", lambda _crew: [schedule.Job("long", 60, long, at_start=True)]
    )
    running = Schedule(crew_of(books, TwoClocks()))
    running.start()
    async with asyncio.timeout(10):
        await began.wait()
        running.stop()
        await ended.wait()
    await asyncio.sleep(0.05)  # the scheduler's own callbacks
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []
