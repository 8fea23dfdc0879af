"""The storage contract: many readers, one writer.

Reads see what was committed when they began. Writes are whole functions that run on the one
writer thread; several are committed together (group commit), and each one is durable when its
future resolves. A write that raises changes nothing and does not disturb its neighbours.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from app.errors import Unavailable

DATABASE_NAME = "turnpike.db"
"""The database's file in the data directory."""

T = TypeVar("T")
Row = tuple[Any, ...]
Params = Sequence[Any]


class LedgerUnavailable(Unavailable):
    """A write failed. The ledger has stopped for good (D11): restart to read what is on disk."""

    code = "ledger_unavailable"


class Transaction(Protocol):
    """What a write unit works with; only valid inside the unit."""

    def execute(self, sql: str, params: Params = ()) -> list[Row]:
        """Run one statement with bound parameters; the rows it returned."""
        ...


class Database(Protocol):
    """One database file, or server."""

    async def read(self, sql: str, params: Params = ()) -> list[Row]:
        """Run one query on a read-only connection."""
        ...

    async def write(self, unit: Callable[[Transaction], T], *, is_note: bool = False) -> T:
        """Run ``unit`` on the writer thread inside a transaction; durable when this returns.

        ``is_note``: it writes nothing that anybody's rights, tier or limits are made from, so
        what is remembered of those need not be forgotten.

        ``unit`` does no I/O of its own and awaits nothing. Cancelling the awaiting task does not
        stop it. Raises what ``unit`` raised, or LedgerUnavailable once any commit has failed.
        """
        ...
