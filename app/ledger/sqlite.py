"""The ledger over SQLite: each verb runs on the writer thread and is durable when it returns."""

import asyncio
import contextlib
from collections.abc import Sequence

from app.clock import Clock
from app.ledger.credit_verbs import CreditVerbs
from app.ledger.entries import (
    Adjustment,
    Balance,
    EndpointMinute,
    Grant,
    Hold,
    HoldRequest,
    NewGrant,
    PendingCost,
    ProbeRow,
    Settlement,
    StoredAnswer,
    UsageRow,
)
from app.ledger.house_verbs import HouseVerbs
from app.ledger.image import LedgerImage
from app.ledger.late_costs import LateCosts
from app.ledger.standing import Standings
from app.storage.sqlite import SqliteDatabase


class SqliteLedger:
    """Implements ``LedgerStore``. Make it before the database is opened: it loads the open holds.

    Cancelling a verb cancels the future that it awaits, never the work behind it.
    """

    def __init__(self, database: SqliteDatabase, clock: Clock, standings: Standings) -> None:
        self._database = database
        self._clock = clock
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._image = LedgerImage(clock, standings, self._wake)
        self._late = LateCosts(self._image)
        self._credit = CreditVerbs(self._image, standings, clock)
        self._house = HouseVerbs(self._image)
        database.attach(self._image)

    async def place_hold(self, request: HoldRequest) -> Hold:
        """See ``LedgerStore``."""
        hold: Hold = await self._database.submit(self._image.place, request)
        return hold

    async def settle_hold(
        self,
        call_id: str,
        cost_nano_usd: int,
        usage: UsageRow,
        *,
        lost_nano_usd: int = 0,
        answer: StoredAnswer | None = None,
    ) -> Settlement:
        """See ``LedgerStore``. Raises NotFound for a call that has no hold."""
        settlement: Settlement = await self._database.submit(
            self._image.settle, call_id, cost_nano_usd, usage, lost_nano_usd, answer
        )
        return settlement

    async def void_hold(
        self, call_id: str, usage: UsageRow, *, lost_nano_usd: int = 0
    ) -> Settlement:
        """See ``LedgerStore``. Raises NotFound for a call that has no hold."""
        settlement: Settlement = await self._database.submit(
            self._image.void, call_id, usage, lost_nano_usd
        )
        return settlement

    async def give_up_expired(self, now_ms: int) -> list[Settlement]:
        """See ``LedgerStore``."""
        settlements: list[Settlement] = await self._database.submit(
            self._late.give_up_expired, now_ms
        )
        return settlements

    async def recover(self) -> list[Settlement]:
        """See ``LedgerStore``."""
        settlements: list[Settlement] = await self._database.submit(
            self._late.recover, self._clock.now_ms()
        )
        return settlements

    async def bind_request(self, call_id: str, provider: str, upstream_id: str) -> None:
        """See ``LedgerStore``."""
        await self._database.submit(
            self._late.bind, call_id, provider, upstream_id, self._clock.now_ms()
        )

    async def release_request(self, call_id: str) -> None:
        """See ``LedgerStore``."""
        await self._database.submit(self._late.release, call_id)

    async def await_cost(
        self,
        call_id: str,
        usage: UsageRow,
        *,
        give_up_at_ms: int,
        lost_nano_usd: int = 0,
        answer: StoredAnswer | None = None,
    ) -> None:
        """See ``LedgerStore``."""
        now_ms = self._clock.now_ms()
        await self._database.submit(
            self._late.wait, call_id, usage, now_ms, give_up_at_ms, lost_nano_usd, answer
        )

    async def pending_costs(self, provider: str, limit: int) -> list[PendingCost]:
        """See ``LedgerStore``."""
        rows = await self._database.read(
            "SELECT call_id, provider, upstream_id, served_at_ms, give_up_at_ms FROM pending_costs"
            " WHERE provider = ? ORDER BY call_id LIMIT ?",
            (provider, limit),
        )
        return [
            PendingCost(
                call_id=row[0],
                provider=row[1],
                upstream_id=row[2],
                served_at_ms=row[3],
                give_up_at_ms=row[4],
            )
            for row in rows
        ]

    async def resolve_cost(self, call_id: str, cost_nano_usd: int) -> Settlement:
        """See ``LedgerStore``."""
        settlement: Settlement = await self._database.submit(
            self._late.resolve, call_id, cost_nano_usd
        )
        return settlement

    async def balance(self, payer_id: str) -> Balance:
        """See ``LedgerStore``."""
        balance: Balance = await self._database.submit(self._credit.balance, payer_id)
        return balance

    async def give(self, grant: NewGrant) -> Grant:
        """See ``LedgerStore``."""
        given: Grant = await self._database.submit(self._credit.give, grant)
        return given

    async def adjust(self, adjustment: Adjustment) -> None:
        """See ``LedgerStore``."""
        await self._database.submit(self._credit.adjust, adjustment)

    async def bill_minutes(self, payer_id: str, minutes: Sequence[EndpointMinute]) -> int:
        """See ``LedgerStore``."""
        billed: int = await self._database.submit(
            self._credit.bill_minutes, payer_id, tuple(minutes)
        )
        return billed

    async def book_probe(self, probe_id: str, row: ProbeRow, cost_nano_usd: int) -> None:
        """See ``LedgerStore``."""
        await self._database.submit(self._house.book_probe, probe_id, row, cost_nano_usd)

    async def catch_up(self, payer_ids: Sequence[str]) -> None:
        """See ``LedgerStore``."""
        await self._database.submit(self._credit.catch_up, tuple(payer_ids))

    async def payers_to_catch_up(self, limit: int) -> list[str]:
        """See ``LedgerStore``.

        Whoever was booked for a month has a monthly grant that is open until the next month's
        catch-up, so the grants whose time is over name everybody.
        """
        rows = await self._database.read(
            "SELECT DISTINCT payer_id FROM grants WHERE closed = 0 AND expires_at_ms <= ? LIMIT ?",
            (self._clock.now_ms(), limit),
        )
        return [row[0] for row in rows]

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

    def oldest_hold_ms(self) -> int | None:
        """See ``LedgerStore``. Holds are kept in the order in which they were placed."""
        with contextlib.suppress(RuntimeError, StopIteration):  # the writer's thread changed them
            call_id, hold = next(iter(self._image.open_holds.items()))
            return hold.wallet.admitted.get(call_id)
        return None

    def _wake(self, payer_ids: set[str]) -> None:
        if not self._waiting:
            return
        for payer_id in payer_ids & self._waiting.keys():
            for released in self._waiting.pop(payer_id):
                if not released.done():
                    released.set_result(None)
