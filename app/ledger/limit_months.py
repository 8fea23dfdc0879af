"""How far limited months are used up, in memory: made when a call first meets the limit.

Only scopes that have a spending limit are counted. A limit that is set in the middle of a month
starts with what the month's usage sums and the open holds say.
"""

import sqlite3
from collections.abc import Callable

from app.ledger.entries import Limit
from app.ledger.rows import LedgerRows

CACHED_MAX = 65_536


class LimitMonth:
    """One scope's month. ``past`` lifts the CHECK of the row: the sum is over a limit that was
    lowered under it."""

    __slots__ = ("amount", "dirty", "held", "limit", "past", "period", "posted", "told")

    def __init__(self, limit: Limit, period: str) -> None:
        self.limit = limit
        self.period = period
        self.amount = limit.amount_nano_usd
        self.past = False
        self.posted = 0
        self.held = 0
        self.dirty = False
        self.told = 0

    def room(self) -> int:
        """What a new hold can take."""
        return max(self.amount - self.posted - self.held, 0)


class LimitMonths:
    """The cache of limited months, and the rows of those that changed.

    ``spent`` sums a scope's month from usage; ``weigh`` lets the open holds weigh on a month.
    """

    def __init__(
        self,
        rows: LedgerRows,
        spent: Callable[[str, str, str], int],
        weigh: Callable[[LimitMonth], int],
    ) -> None:
        self._rows = rows
        self._spent = spent
        self._weigh = weigh
        self._months: dict[tuple[str, str, str], LimitMonth] = {}
        self._dirty: list[LimitMonth] = []
        self._connection: sqlite3.Connection

    def opened(self, connection: sqlite3.Connection) -> None:
        """Read from this connection from now on."""
        self._connection = connection

    def of(self, limit: Limit, period: str) -> LimitMonth:
        """The month of a limit, at the limit's present amount.

        While there is no limit nothing is counted, so one that was set anew starts from what the
        usage sums and the open holds say.
        """
        key = (limit.scope, limit.subject_id, period)
        month = self._months.get(key)
        if month is None:
            month = self._months[key] = LimitMonth(limit, period)
            self._load(month, key)
        elif (month.limit.set_at_ms, month.amount) != (limit.set_at_ms, limit.amount_nano_usd):
            posted = self._spent(*key)  # writes what was gathered so far, this month as it was
            month.limit, month.amount = limit, limit.amount_nano_usd
            month.posted, month.held = posted, self._weigh(month)
        else:
            return month
        month.past = month.posted + month.held > month.amount
        self.touch(month)
        return month

    def touch(self, month: LimitMonth) -> None:
        """Note that the month changed."""
        month.past = month.past and month.posted + month.held > month.amount
        if not month.dirty:
            month.dirty = True
            self._dirty.append(month)

    def gather(self) -> None:
        """Buffer the rows of the months that changed."""
        for month in self._dirty:
            month.dirty = False
            self._rows.limit_months.add(
                (
                    month.limit.scope,
                    month.limit.subject_id,
                    month.period,
                    month.limit.set_at_ms,
                    month.amount,
                    1 if month.past else 0,
                    month.posted,
                    month.held,
                )
            )
        self._dirty.clear()

    def trim(self) -> None:
        """After a commit: when too many are cached, keep those that something is held of."""
        if len(self._months) > CACHED_MAX:
            self._months = {key: month for key, month in self._months.items() if month.held}

    def _load(self, month: LimitMonth, key: tuple[str, str, str]) -> None:
        month.held = self._weigh(month)
        row = self._connection.execute(
            "SELECT posted_nano_usd FROM limit_months"
            " WHERE scope = ? AND subject_id = ? AND period = ? AND set_at_ms = ?",
            (*key, month.limit.set_at_ms),
        ).fetchone()
        month.posted = row[0] if row else self._spent(*key)
