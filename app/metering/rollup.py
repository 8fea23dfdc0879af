"""Cuts a range of time into the sums that are kept: months, days, hours, and calls at the edges.

An edge is added to what lies inside the range, or taken away from what lies around it, whichever is
shorter: all sums are linear. So a range costs about the same however long it is.
"""

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import NamedTuple

from app.clock import DAY_MS

HOUR_MS = 3_600_000
DAY_HOURS = 24
ENDLESS_DAY = 2**31
ENDLESS_MS = ENDLESS_DAY * DAY_MS
_EPOCH = date(1970, 1, 1).toordinal()
_DAYS_MAX = date(9999, 11, 1).toordinal() - _EPOCH


class Level(StrEnum):
    """How coarse a sum is; a cut's start and end count in this unit since 1970."""

    CALLS = "calls"  # milliseconds
    HOURS = "hours"
    DAYS = "days"
    MONTHS = "months"


class Cut(NamedTuple):
    """Sums from ``start`` up to, without, ``end``: to add (``sign`` 1) or to take away (-1)."""

    level: Level
    start: int
    end: int
    sign: int = 1


def cuts(since_ms: int, until_ms: int, months: Sequence[int] = ()) -> list[Cut]:
    """The cuts whose sum is [since, until). ``months`` are those that may be used, in order and
    without a gap."""
    if since_ms >= until_ms:
        return []
    first, last = -(-since_ms // HOUR_MS), until_ms // HOUR_MS
    if first > last:
        return [Cut(Level.CALLS, since_ms, until_ms)]
    found = [
        Cut(Level.CALLS, since_ms, first * HOUR_MS),
        Cut(Level.CALLS, last * HOUR_MS, until_ms),
    ]
    days = _rounded(first), _rounded(last)
    if days[0] < days[1]:
        found += _edges(Level.HOURS, (first, last), [day * DAY_HOURS for day in days])
        found += _of_days(*days, months)
    else:
        found.append(Cut(Level.HOURS, first, last))
    return [cut for cut in found if cut.start < cut.end]


def month_of(day: int) -> int:
    """The month, counted from 1970-01, of a day counted from 1970-01-01."""
    found = date.fromordinal(_EPOCH + day)
    return (found.year - 1970) * 12 + found.month - 1


def first_day(month: int) -> int:
    """The first day of a month, both counted from 1970-01."""
    return date(1970 + month // 12, month % 12 + 1, 1).toordinal() - _EPOCH


def day_name(day: int) -> str:
    """``YYYY-MM-DD`` of a day counted from 1970-01-01."""
    return date.fromordinal(_EPOCH + day).isoformat()


def _of_days(first: int, last: int, months: Sequence[int]) -> list[Cut]:
    if months:
        bounds = [_nearest_month(day, months) for day in (first, last)]
        if bounds[0] < bounds[1]:
            edges = _edges(Level.DAYS, (first, last), [first_day(month) for month in bounds])
            return [Cut(Level.MONTHS, *bounds), *edges]
    return [Cut(Level.DAYS, first, last)]


def _edges(level: Level, wanted: tuple[int, int], used: Sequence[int]) -> list[Cut]:
    """What is missing where ``used`` starts later or ends earlier than ``wanted``, and what is too
    much where it starts earlier or ends later."""
    return [
        Cut(level, wanted[0], used[0]),
        Cut(level, used[0], wanted[0], -1),
        Cut(level, used[1], wanted[1]),
        Cut(level, wanted[1], used[1], -1),
    ]


def _rounded(hour: int) -> int:
    return (hour + DAY_HOURS // 2) // DAY_HOURS


def _nearest_month(day: int, months: Sequence[int]) -> int:
    lowest, highest = months[0], months[-1] + 1
    month = month_of(min(max(day, 0), _DAYS_MAX))
    if 2 * day > first_day(month) + first_day(month + 1):
        month += 1
    return min(max(month, lowest), highest)
