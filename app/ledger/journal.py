"""Entries on their way into the journal: numbered and chained in memory, written with the group."""

import sqlite3

from app.clock import Clock
from app.ledger.accounts import EntryKind
from app.ledger.chain import HEAD, link
from app.ledger.rows import RowBuffer


class Journal:
    """The end of the journal. What it hands out is on disk once the group is."""

    def __init__(self, rows: RowBuffer, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock
        self._last = HEAD
        self.next_seq = 1

    def opened(self, connection: sqlite3.Connection) -> None:
        """Go on where the table ends."""
        row = connection.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1")
        for seq, last in row.fetchall():
            self.next_seq, self._last = seq + 1, last

    def enter(
        self, kind: EntryKind, period: str, subject: str, debit: int, credit: int, amount: int
    ) -> None:
        """Move an amount > 0 from the debit account to the credit account."""
        seq, at_ms = self.next_seq, self._clock.now_ms()
        row = (seq, at_ms, period, kind.value, subject, int(debit), int(credit), amount)
        self._last = link(self._last, *row)
        self.next_seq = seq + 1
        self._rows.add((*row, self._last))
