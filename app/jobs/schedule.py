"""Every periodic job in one table.

The scheduler is only a wake-up: a job does what is due by the ledger's own rows, so a run that is
missed, late or doubled changes nothing (reliability.md D9). Intervals only, never local time.

APScheduler goes by the time of day, so a clock that steps back would stop it for as long; the tick
goes by the monotonic clock, and after each one such jobs are woken up. And its own intervals count
all the runs that a step ahead has skipped, one by one: from 1970 to today that takes hours, in
which nothing else happens. So here the next run is always an interval from now.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Protocol

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from app.billing.month_closing import MonthClosing
from app.billing.resolution import Resolution
from app.job_runs import JobRuns
from app.jobs.back_up import BackingUp
from app.jobs.catch_up import catch_up
from app.jobs.close_months import close_months
from app.jobs.deliver_events import EventDelivery
from app.jobs.discover_models import discover_models
from app.jobs.forget_answers import forget_answers
from app.jobs.probe_offers import OfferProbes
from app.jobs.resolve_costs import resolve_costs
from app.jobs.tick import tick
from app.jobs.usage_log import UsageKeeping
from app.jobs.verify import verify_slice
from app.ledger.store import LedgerStore
from app.ledger.time import LedgerClock
from app.ledger.verify import JournalWatch
from app.routing.discovery import Discoveries
from app.storage.database import Database

TICK_EVERY_S: float = 60
GIVE_UP_EVERY_S: float = 60
CATCH_UP_EVERY_S: float = 60
DELIVER_EVERY_S: float = 15
CLOSE_EVERY_S: float = 3600
VERIFY_EVERY_S: float = 3600
KEEP_USAGE_EVERY_S: float = 600
FORGET_EVERY_S: float = 600
SWEEP_EVERY_S: float = 3600
DISCOVER_EVERY_S: float = 5  # what is due is asked; the configuration says how often that is
PROBE_EVERY_S: float = 5
LATE_S: float = 3600
BACK_UP_EVERY_S: float = 60  # the folder says whether one is due

_logger = logging.getLogger(__name__)


class Sweeps(Protocol):
    """What keeps things for a while: ``app.api.openai.video_jobs.VideoJobs``."""

    async def sweep(self) -> Any:
        """Let go of what is too old."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """What the jobs work with."""

    database: Database
    ledger: LedgerStore
    clock: LedgerClock
    resolution: Resolution
    delivery: EventDelivery | None = None
    closing: MonthClosing | None = None
    journal: JournalWatch | None = None
    usage: UsageKeeping | None = None
    videos: Sweeps | None = None
    discoveries: Discoveries | None = None
    probes: OfferProbes | None = None
    backing_up: BackingUp | None = None
    runs: JobRuns = field(default_factory=JobRuns)


class Job(NamedTuple):
    """One line of the table. The first run comes after the interval, or at the start too."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[Any]]
    at_start: bool = False


def table(crew: Crew) -> list[Job]:
    """All jobs but the tick. Give-ups go by ages, which a jump of the clock does not change."""
    ledger, clock = crew.ledger, crew.clock
    jobs = [
        Job(
            "resolve costs, then give up expired holds",
            GIVE_UP_EVERY_S,
            partial(resolve_costs, crew.resolution, ledger, clock.ages),
        ),
        Job("forget answers", FORGET_EVERY_S, partial(forget_answers, crew.database, clock)),
        Job("catch up months", CATCH_UP_EVERY_S, partial(catch_up, ledger, clock), at_start=True),
    ]
    if crew.delivery is not None:
        jobs.append(Job("deliver events", DELIVER_EVERY_S, crew.delivery.run))
    if crew.closing is not None:
        close = partial(close_months, crew.closing)
        jobs.append(Job("close months", CLOSE_EVERY_S, close, at_start=True))
    if crew.journal is not None:
        check = partial(verify_slice, crew.journal)
        jobs.append(Job("check a slice of the journal", VERIFY_EVERY_S, check, at_start=True))
    if crew.videos is not None:
        jobs.append(Job("forget videos", SWEEP_EVERY_S, crew.videos.sweep))
    if crew.usage is not None:
        jobs.append(Job("keep the usage log short", KEEP_USAGE_EVERY_S, crew.usage.run))
    if crew.discoveries is not None:
        ask = partial(discover_models, crew.discoveries)
        jobs.append(Job("discover models", DISCOVER_EVERY_S, ask, at_start=True))
    if crew.probes is not None:
        jobs.append(Job("probe offers", PROBE_EVERY_S, crew.probes.run, at_start=True))
    if crew.backing_up is not None:
        jobs.append(Job("back up", BACK_UP_EVERY_S, crew.backing_up.run, at_start=True))
    return jobs


class FromNow(BaseTrigger):  # type: ignore[misc]  # it has no types
    """Every so often, counted from each wake-up; what a jump skipped is not counted."""

    def __init__(self, every_s: float) -> None:
        self._every = timedelta(seconds=every_s)

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """An interval from now."""
        return now + self._every


class Schedule:
    """Runs the jobs on the event loop between ``start`` and ``stop``."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._tick_once = crew.runs.watched(
            "tick", TICK_EVERY_S, lambda: tick(crew.clock, crew.database)
        )
        self._ticking: asyncio.Task[None] | None = None
        self._stopped = False
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._every: dict[str, timedelta] = {}
        self._late: set[str] = set()
        for job in table(crew):
            self._every[job.name] = timedelta(seconds=job.every_s)
            at_start = {"next_run_time": datetime.now(UTC)} if job.at_start else {}
            self._scheduler.add_job(
                self._until_stopped(crew.runs.watched(job.name, job.every_s, job.run)),
                FromNow(job.every_s),
                id=job.name,
                name=job.name,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
                **at_start,
            )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        self._ticking = asyncio.create_task(self._tick(), name="tick")

    def stop(self) -> None:
        """End at once; a job that is running is a ledger verb and finishes by itself."""
        if self._ticking is not None:
            self._ticking.cancel()
        self._stopped = True
        self._scheduler.shutdown(wait=False)

    def realign(self) -> None:
        """Wake up the jobs that would wait for longer than their interval."""
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            if job.next_run_time - now > self._every[job.id]:
                job.modify(next_run_time=now)

    def _until_stopped(self, run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """The scheduler cancels what runs when it is stopped, and would log that as an error."""

        async def run_until_stopped() -> None:
            try:
                await run()
            except asyncio.CancelledError:
                if not self._stopped:
                    raise

        return run_until_stopped

    def _tell_of_late(self) -> None:
        """Say once of each job that nothing was heard of it, and that it runs again."""
        late = {run.name: run.late_s for run in self._crew.runs if run.late_s > LATE_S}
        for name in late.keys() - self._late:
            _logger.error(
                "the periodic task %r has been late for %d minutes: if the log does not say"
                " why it fails, restart the server (turnpike restart); what it missed is made up"
                " for",
                name,
                late[name] // 60,
            )
        for name in self._late - late.keys():
            _logger.info("the periodic task %r runs again", name)
        self._late = set(late)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_EVERY_S)
            try:
                self._tell_of_late()
                await self._tick_once()
                self.realign()
            except Exception:
                _logger.exception("the tick failed; the next one is due in a minute")
