"""Every minute: looks at the machine's clock, and writes down how far ledger time has come."""

from app.ledger.time import LedgerClock, keep_mark
from app.storage.database import Database


async def tick(clock: LedgerClock, database: Database) -> None:
    """One look and one mark; in doubt, ledger time is still sound, and so is the mark."""
    clock.tick()
    await keep_mark(clock, database)
