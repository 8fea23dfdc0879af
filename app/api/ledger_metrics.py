"""What ``/metrics`` says about the ledger and the files that it lies in."""

import time
from collections.abc import Iterator
from typing import Protocol

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.api.families import gauge, gauges, histogram
from app.histogram import Histogram
from app.ledger.store import LedgerStore
from app.ledger.time import LedgerClock
from app.ledger.verify import JournalWatch


class Commits(Protocol):
    """How the database does: ``app.storage.sqlite.SqliteDatabase``."""

    @property
    def commits(self) -> Histogram:
        """How long groups took to be on the disk, in microseconds."""
        ...

    @property
    def queue_length(self) -> int:
        """Writes that wait for the next group."""
        ...

    def bytes_by_file(self) -> dict[str, int]:
        """The sizes of the ``database`` and its ``wal``."""
        ...


class LedgerMetrics(Collector):
    """Read when asked."""

    def __init__(
        self, database: Commits, ledger: LedgerStore, journal: JournalWatch, clock: LedgerClock
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._journal = journal
        self._clock = clock
        self._started_ns = time.monotonic_ns()

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield histogram(
            "ledger_commit_seconds",
            "How long a group of writes took to be on the disk.",
            [],
            [((), self._database.commits)],
            per_second=1_000_000,
        )
        yield gauge(
            "ledger_queue_length",
            "Writes that wait for the next group.",
            self._database.queue_length,
        )
        yield gauges(
            "database_bytes",
            "Sizes of the database and of its write-ahead log (wal).",
            ["file"],
            [((file,), size) for file, size in self._database.bytes_by_file().items()],
        )
        yield gauge("holds_open", "Holds that have not ended.", self._ledger.open_holds())
        oldest_ms = self._ledger.oldest_hold_ms()
        age_ms = 0 if oldest_ms is None else self._clock.now_ms() - oldest_ms
        yield gauge(
            "oldest_hold_age_seconds",
            "Age of the oldest hold that has not ended; 0 without any.",
            max(0, age_ms) / 1000,
        )
        checked_ns = self._journal.checked_ns
        since_ns = self._started_ns if checked_ns is None else checked_ns
        yield gauge(
            "journal_check_age_seconds",
            "Time since a slice of the journal was checked, or since the start.",
            (time.monotonic_ns() - since_ns) / 1e9,
        )
        time_of_day = self._clock.state()
        yield gauge(
            "clock_in_doubt",
            "1 while the machine's clock has jumped and the new time is not taken yet.",
            time_of_day.suspended,
        )
        yield gauge(
            "clock_step_seconds",
            "How far the clock is from where it is expected, while that is in doubt.",
            time_of_day.step_ms / 1000,
        )
        yield gauge(
            "clock_lead_seconds",
            "How far the ledger's time, which never goes back, is ahead of the clock.",
            time_of_day.lead_ms / 1000,
        )
        yield gauge(
            "journal_sound",
            "1, or 0 once the journal was found damaged.",
            not self._journal.problem,
        )
