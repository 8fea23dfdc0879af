"""Injected time: wall time for records, monotonic time for ages. Nothing else reads a clock."""

import sys
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Where the rooms get the time from; tests give one that they move by hand."""

    def now_ms(self) -> int:
        """Wall time in milliseconds since 1970-01-01 UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds from an arbitrary start, never backwards."""
        ...

    @property
    def suspended(self) -> bool:
        """Whether the time of day is in doubt: no month is begun or ended by it then."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    @property
    def suspended(self) -> bool:
        """Never: only ``app.ledger.time`` compares the clocks."""
        return False


DAY_MS = 86_400_000
EARLIEST_MS = 1_767_225_600_000
"""2026-01-01: this program is younger than any time before that."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def slept_ns() -> int:
    """How long the machine slept (suspended to memory or disk), from an arbitrary start: its growth
    is what the monotonic clock leaves out. 0 where the system does not tell.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):  # Linux
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(
            time.CLOCK_MONOTONIC
        )
    if sys.platform == "darwin":
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) - time.clock_gettime_ns(
            time.CLOCK_UPTIME_RAW
        )
    return 0


def period_of(at_ms: int) -> str:
    """The UTC month that a moment belongs to, as ``YYYY-MM``: the key of monthly grants."""
    return _period_of_day(at_ms // DAY_MS)


def month_ms(period: str) -> tuple[int, int]:
    """Milliseconds at which a UTC month (``YYYY-MM``) begins and ends."""
    year, month = int(period[:4]), int(period[5:])
    begins = datetime(year, month, 1, tzinfo=UTC)
    ends = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return (begins - _EPOCH).days * DAY_MS, (ends - _EPOCH).days * DAY_MS


@lru_cache(maxsize=64)
def _period_of_day(days: int) -> str:
    return (_EPOCH + timedelta(days=days)).strftime("%Y-%m")
