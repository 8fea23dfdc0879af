"""Every ten minutes: forgets answers that were kept for repeats of a request (Idempotency-Key)."""

from app.clock import Clock
from app.ledger.idempotency import LIVES_MS
from app.storage.database import Database, Transaction

_CHUNK = 500  # so that no call waits long behind it


async def forget_answers(database: Database, clock: Clock) -> int:
    """Remove those whose time is over, some at a time; how many. A call that runs keeps its key."""
    before_ms, forgotten = clock.now_ms() - LIVES_MS, 0

    def unit(tx: Transaction) -> int:
        return len(
            tx.execute(
                "DELETE FROM idempotency WHERE (user_id, key) IN (SELECT user_id, key"
                " FROM idempotency WHERE created_at_ms <= ? AND status IS NOT NULL LIMIT ?)"
                " RETURNING 1",
                (before_ms, _CHUNK),
            )
        )

    while found := await database.write(unit, is_note=True):
        forgotten += found
    return forgotten
