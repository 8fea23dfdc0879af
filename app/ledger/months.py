"""Payers' months in memory: loaded when a call touches them, written once per group."""

import sqlite3

from app.ledger.accounts import PayerAccount
from app.ledger.rows import LedgerRows

MONTHS_CACHED_MAX = 65_536
Key = tuple[str, str]
"""A payer and a period."""


class Month:
    """A payer's month. ``overage`` lifts the CHECK of the row, see the first migration; ``holds``
    counts the open holds, which point to this object: while there are any it stays in memory."""

    __slots__ = (
        "dirty",
        "grant_account",
        "granted",
        "held",
        "holds",
        "overage",
        "overage_account",
        "payer_id",
        "period",
        "posted",
    )

    def __init__(self, key: Key, grant_account: int, overage_account: int) -> None:
        self.payer_id, self.period = key
        self.grant_account = grant_account
        self.overage_account = overage_account
        self.overage = False
        self.granted = 0
        self.posted = 0
        self.held = 0
        self.holds = 0
        self.dirty = False


class Months:
    """The cache of months, and the rows of those that changed."""

    def __init__(self, rows: LedgerRows, cached_max: int = MONTHS_CACHED_MAX) -> None:
        self._rows = rows
        self._cached_max = cached_max
        self._months: dict[Key, Month] = {}
        self._dirty: list[Month] = []
        self._next_account_id = 0
        self._connection: sqlite3.Connection

    def opened(self, connection: sqlite3.Connection) -> None:
        """Read from this connection from now on."""
        self._connection = connection
        query = "SELECT max(id) + 1 FROM accounts"
        self._next_account_id = connection.execute(query).fetchone()[0]

    def find(self, key: Key) -> Month | None:
        """A month that some call touched before."""
        month = self._months.get(key)
        if month is not None:
            return month
        row = self._connection.execute(
            "SELECT grant_account_id, overage_account_id, overage, granted_nano_usd,"
            " posted_nano_usd, held_nano_usd FROM balances WHERE payer_id = ? AND period = ?",
            key,
        ).fetchone()
        if row is None:
            return None
        month = Month(key, row[0], row[1])
        month.overage = bool(row[2])
        month.granted, month.posted, month.held = row[3:]
        self._months[key] = month
        return month

    def make(self, key: Key) -> Month:
        """A payer's first call in a month: two accounts, and no credit yet."""
        first = self._next_account_id
        self._next_account_id += 2
        payer_id, period = key
        self._rows.accounts.add((first, payer_id, str(PayerAccount.GRANT), period))
        self._rows.accounts.add((first + 1, payer_id, str(PayerAccount.OVERAGE), period))
        month = self._months[key] = Month(key, first, first + 1)
        return month

    def touch(self, month: Month, overage: bool) -> None:
        """Note that the month changed, on terms with or without ``overage``.

        A month stays marked while it is past its credit, even after a step down to a tier with a
        hard stop, and loses the mark with the first change that finds it within.
        """
        past = month.posted + month.held > month.granted
        month.overage = past and (month.overage or overage)
        if not month.dirty:
            month.dirty = True
            self._dirty.append(month)

    def gather(self) -> None:
        """Buffer the rows of the months that changed."""
        add = self._rows.balances.add
        for month in self._dirty:
            month.dirty = False
            add(
                (
                    month.payer_id,
                    month.period,
                    month.grant_account,
                    month.overage_account,
                    1 if month.overage else 0,
                    month.granted,
                    month.posted,
                    month.held,
                )
            )
        self._dirty.clear()

    def trim(self) -> None:
        """After a commit: when too many are cached, drop the oldest quarter.

        Months with open holds stay, since those point to them, and become the youngest.
        """
        if len(self._months) > self._cached_max:
            for key in list(self._months)[: self._cached_max // 4 + 1]:
                month = self._months.pop(key)
                if month.holds:
                    self._months[key] = month
