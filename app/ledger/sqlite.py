"""The ledger over SQLite: each verb runs on the writer thread and is durable when it returns."""

import asyncio
import contextlib

from app.clock import Clock
from app.ledger.entries import Balance, CreditTerms, Hold, HoldRequest, Settlement, UsageRow
from app.ledger.image import LedgerImage
from app.storage.sqlite import SqliteDatabase


class SqliteLedger:
    """Implements ``LedgerStore``. Make it before the database is opened: it loads the open holds.

    Cancelling a verb cancels the future that it awaits, never the work behind it.
    """

    def __init__(self, database: SqliteDatabase, clock: Clock) -> None:
        self._database = database
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._image = LedgerImage(clock, self._wake)
        database.attach(self._image)

    async def place_hold(self, request: HoldRequest) -> Hold:
        """See ``LedgerStore``."""
        hold: Hold = await self._database.submit(self._image.place, request)
        return hold

    async def settle_hold(self, call_id: str, cost_nano_usd: int, usage: UsageRow) -> Settlement:
        """See ``LedgerStore``. Raises NotFound for a call that has no hold."""
        settlement: Settlement = await self._database.submit(
            self._image.settle, call_id, cost_nano_usd, usage
        )
        return settlement

    async def void_hold(self, call_id: str, usage: UsageRow) -> Settlement:
        """See ``LedgerStore``. Raises NotFound for a call that has no hold."""
        settlement: Settlement = await self._database.submit(self._image.void, call_id, usage)
        return settlement

    async def give_up_expired(self, now_ms: int) -> list[Settlement]:
        """See ``LedgerStore``."""
        settlements: list[Settlement] = await self._database.submit(self._image.give_up, now_ms)
        return settlements

    async def recover(self) -> list[Settlement]:
        """See ``LedgerStore``."""
        settlements: list[Settlement] = await self._database.submit(self._image.give_up, None)
        return settlements

    async def balance(self, payer_id: str, period: str, terms: CreditTerms) -> Balance:
        """See ``LedgerStore``."""
        rows = await self._database.read(
            "SELECT granted_nano_usd, posted_nano_usd, held_nano_usd FROM balances"
            " WHERE payer_id = ? AND period = ?",
            (payer_id, period),
        )
        granted, posted, held = rows[0] if rows else (0, 0, 0)
        return Balance(
            payer_id=payer_id,
            period=period,
            granted_nano_usd=max(granted, terms.monthly_credit_nano_usd),
            posted_nano_usd=posted,
            held_nano_usd=held,
            overage=terms.overage,
        )

    async def wait_for_release(self, payer_id: str, timeout_s: float) -> bool:
        """See ``LedgerStore``. True at once when no hold of the payer is open."""
        if not self._image.holds_something(payer_id):
            return True
        released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(payer_id, [])
        waiting.append(released)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await released
                    return True
            return False
        finally:
            if not released.done() or released.cancelled():
                waiting.remove(released)
                if not waiting and self._waiting.get(payer_id) is waiting:
                    del self._waiting[payer_id]

    def open_holds(self) -> int:
        """See ``LedgerStore``."""
        return len(self._image.open_holds)

    def _wake(self, payer_ids: set[str]) -> None:
        if not self._waiting:
            return
        for payer_id in payer_ids & self._waiting.keys():
            for released in self._waiting.pop(payer_id):
                if not released.done():
                    released.set_result(None)
