"""A ledger on a machine whose clocks are moved by hand, started and stopped as the server does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.clock import month_ms, period_of
from app.jobs.catch_up import catch_up
from app.jobs.give_up import give_up
from app.jobs.tick import tick
from app.ledger.audit import audit
from app.ledger.entries import Hold, HoldRequest
from app.ledger.sqlite import SqliteLedger
from app.ledger.time import LedgerClock, open_clock
from app.storage.sqlite import SqliteDatabase
from tests.app.ledger.books import HandStandings, hold, used
from tests.app.ledger.two_clocks import MINUTE_MS, TwoClocks


@dataclass
class Run:
    """The server between a boot and its end."""

    machine: TwoClocks
    database: SqliteDatabase
    ledger: SqliteLedger
    clock: LedgerClock
    admitted_ms: dict[str, int] = field(default_factory=dict)

    async def minute(self) -> None:
        """A minute passes, and the jobs run."""
        self.machine.passes(MINUTE_MS)
        await self.jobs()

    async def jobs(self) -> None:
        await tick(self.clock, self.database)
        await give_up(self.ledger, self.clock.ages)
        await catch_up(self.ledger, self.clock)

    def order(self, amount: int, user: str = "user_ann", bill_to: str | None = None) -> HoldRequest:
        """A call that is admitted now."""
        order = hold(amount, user=user, bill_to=bill_to, admitted_at_ms=self.clock.now_ms())
        self.admitted_ms[order.call_id] = order.admitted_at_ms
        return order

    async def settle(self, placed: Hold, cost: int, user: str = "user_ann") -> None:
        at_ms = self.admitted_ms[placed.call_id]
        row = used(placed.call_id, payer=placed.payer_id, user_id=user, at_ms=at_ms)
        await self.ledger.settle_hold(placed.call_id, cost, row)

    async def call(self, cost: int, user: str = "user_ann", bill_to: str | None = None) -> str:
        """A whole call; its month."""
        placed = await self.ledger.place_hold(self.order(cost, user, bill_to))
        await self.settle(placed, cost, user)
        return placed.period


class Boots:
    """One data directory and its machine."""

    def __init__(self, path: Path, machine: TwoClocks, standings: HandStandings) -> None:
        self.path = path
        self.machine = machine
        self.standings = standings

    @asynccontextmanager
    async def boot(self) -> AsyncIterator[Run]:
        """Start as ``app.boot`` does, and run the jobs; at the end the books are audited."""
        clock = LedgerClock(self.machine)
        database = SqliteDatabase(self.path, clock)
        ledger = SqliteLedger(database, clock, self.standings)
        await database.open()
        try:
            await open_clock(clock, database)
            await ledger.recover()
            run = Run(self.machine, database, ledger, clock)
            await catch_up(ledger, clock)
            yield run
            assert (await database.write(audit)).problems == []
        finally:
            await database.close()


def starts(period: str) -> int:
    """When a month begins."""
    return month_ms(period)[0]


def after(period: str, months: int = 1) -> str:
    """That many months later."""
    for _ in range(months):
        period = period_of(month_ms(period)[1])
    return period


async def racing(run: Run, callers: int, cost: int) -> list[Hold]:
    """Calls of one payer that come at once, beside two runs of the job; their holds."""
    orders = [run.order(cost) for _ in range(callers)]
    placed = asyncio.gather(*(run.ledger.place_hold(order) for order in orders))
    await asyncio.gather(catch_up(run.ledger, run.clock), placed, catch_up(run.ledger, run.clock))
    return await placed
