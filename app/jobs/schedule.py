"""Every periodic job in one table.

The scheduler is only a wake-up: a job does what is due by the ledger's own rows, so a run that is
missed, late or doubled changes nothing (reliability.md D9). Intervals only, never local time.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app.clock import Clock
from app.jobs.give_up import give_up
from app.ledger.store import LedgerStore

GIVE_UP_EVERY_S = 60


class Schedule:
    """Runs the jobs on the event loop between ``start`` and ``stop``."""

    def __init__(self, ledger: LedgerStore, clock: Clock) -> None:
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        jobs: list[tuple[str, int, Callable[[], Awaitable[None]]]] = [
            ("give up expired holds", GIVE_UP_EVERY_S, partial(give_up, ledger, clock)),
        ]
        for name, seconds, job in jobs:
            self._scheduler.add_job(
                job,
                "interval",
                seconds=seconds,
                name=name,
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
            )

    def start(self) -> None:
        """Begin; the first run of each job comes after its interval."""
        self._scheduler.start()

    def stop(self) -> None:
        """End at once; a job that is running is a ledger verb and finishes by itself."""
        self._scheduler.shutdown(wait=False)
