"""How calls ended: the first result of each, for whoever asks again (I3, I4)."""

import sqlite3

from app.errors import Conflict, NotFound
from app.ledger.accounts import EntryKind, HouseAccount
from app.ledger.entries import HoldState, Settlement
from app.ledger.journal import Journal


class Endings:
    """The settlements table, and those of the group that are not in it yet."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ended: dict[str, tuple[Settlement, str]] = {}
        self._forgiven: set[str] = set()
        self._connection: sqlite3.Connection
        self.highest_call_id = ""

    def opened(self, connection: sqlite3.Connection) -> None:
        """Read from this connection from now on."""
        self._connection = connection
        row = connection.execute("SELECT max(call_id) FROM settlements").fetchone()
        self.highest_call_id = row[0] or ""

    def flushed(self) -> None:
        """Everything is in the tables."""
        self._ended.clear()
        self._forgiven.clear()

    def add(self, settlement: Settlement, period: str) -> None:
        """A call of that month ended in this group."""
        self._ended[settlement.call_id] = (settlement, period)

    def check_unused(self, call_id: str) -> None:
        """Raise Conflict for the id of a call that has ended."""
        # Call ids grow with time, so one above all before it needs no look at the table.
        if call_id <= self.highest_call_id and self._find(call_id) is not None:
            raise used_before(call_id)

    def first(self, call_id: str) -> Settlement:
        """How a call ended. Raises NotFound where it never had a hold."""
        settlement = self._find(call_id)
        if settlement is None:
            raise NotFound(f"There is no hold for the call {call_id}.")
        return settlement

    def forgive(self, call_id: str, cost_nano_usd: int) -> None:
        """Book a cost that came after the hold was given up: the house's, once."""
        if call_id in self._forgiven:
            return
        ended = self._ended.get(call_id)
        booked, period = self._connection.execute(
            "SELECT (SELECT 1 FROM entries WHERE subject = ? AND kind = ?),"
            " (SELECT period FROM settlements WHERE call_id = ?)",
            (call_id, EntryKind.FORGIVEN, call_id),
        ).fetchone()
        if booked is None:
            self._forgiven.add(call_id)
            period = period if ended is None else ended[1]
            house, cogs = HouseAccount.FORGIVEN, HouseAccount.COGS
            self._journal.enter(EntryKind.FORGIVEN, period, call_id, house, cogs, cost_nano_usd)

    def _find(self, call_id: str) -> Settlement | None:
        ended = self._ended.get(call_id)
        if ended is not None:
            return ended[0]
        row = self._connection.execute(
            "SELECT state, cost_nano_usd, overrun_nano_usd FROM settlements WHERE call_id = ?",
            (call_id,),
        ).fetchone()
        if row is None:
            return None
        return Settlement(
            call_id=call_id,
            state=HoldState(row[0]),
            cost_nano_usd=row[1],
            overrun_nano_usd=row[2],
        )


def used_before(call_id: str) -> Conflict:
    """A call id names one call."""
    return Conflict(f"The call id {call_id} was used before.")
