"""What the tests of invoices share: an open ledger with its closing, calls at any time, and the
journal's own sums to compare with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import config
from app.billing.invoice_document import Invoice, decode
from app.billing.invoices import Composer, Invoices
from app.billing.month_closing import GRACE_MS, MonthClosing
from app.billing.tiers import Tiers
from app.clock import month_ms
from app.ledger.entries import CreditTerms
from tests.app.ledger.books import Books, HandClock, HandStandings, hold, opened, statement, used

SELLER = config.Invoices(
    seller_name="Turnpike Ltd",
    seller_address=["1 Toll Lane", "Gate End"],
    number_prefix="TP-",
)
FREE = CreditTerms(tier="free", monthly_credit_nano_usd=100_000_000, overage=False)
PRO = CreditTerms(
    tier="pro", monthly_credit_nano_usd=2_000_000_000, overage=True, fee_nano_usd=9_000_000_000
)
MARCH_MS = month_ms("2026-03")[0]


@dataclass
class Bills:
    """The books, and what makes invoices of them."""

    books: Books
    composer: Composer
    closing: MonthClosing
    invoices: Invoices

    async def named(self, payer_id: str, name: str, tier: str = "pro") -> None:
        """Give a payer a row of its own: a user, or an org with three seats."""
        if payer_id.startswith("org_"):
            sql = "INSERT INTO orgs (id, name, tier, created_at_ms, seats) VALUES (?, ?, ?, 0, 3)"
        else:
            sql = (
                "INSERT INTO users (id, name, tier, role, created_at_ms)"
                " VALUES (?, ?, ?, 'member', 0)"
            )
        await self.books.database.write(statement(sql, payer_id, name, tier))

    async def open_call(self, payer_id: str, amount: int) -> str:
        """A hold that is not settled yet."""
        request = hold(
            amount,
            user=payer_id,
            admitted_at_ms=self.books.clock.ms,
            expires_at_ms=self.books.clock.ms + 10**12,
        )
        return (await self.books.ledger.place_hold(request)).call_id

    async def settle(self, call_id: str, cost: int, **fields: Any) -> int:
        """End it; what its payer was charged. The usage row is of when it was admitted."""
        ((payer_id, at_ms),) = await self.books.rows(
            "SELECT payer_id, admitted_at_ms FROM holds WHERE call_id = ?", call_id
        )
        row = used(call_id, payer=payer_id, at_ms=at_ms, **fields)
        return (await self.books.ledger.settle_hold(call_id, cost, row)).cost_nano_usd

    async def call(self, payer_id: str, cost: int, **fields: Any) -> int:
        """A whole call; what its payer was charged."""
        return await self.settle(await self.open_call(payer_id, cost), cost, **fields)

    def at(self, period: str, after_ms: int = GRACE_MS) -> None:
        """Go to so long after a month's begin."""
        self.books.clock.ms = month_ms(period)[0] + after_ms

    async def all(self) -> list[Invoice]:
        """Every closed invoice, by number."""
        rows = await self.books.rows("SELECT document FROM invoices ORDER BY number")
        return [decode(row[0]) for row in rows]

    async def journal(self, payer_id: str, period: str, kind: str, *kinds: str) -> int:
        """What entries of these kinds took out of a payer's accounts in a month."""
        marks = ", ".join("?" * (1 + len(kinds)))
        ((found,),) = await self.books.rows(
            "SELECT coalesce(sum(e.amount_nano_usd), 0) FROM entries e"
            " JOIN accounts a ON a.id = e.debit_account_id"
            f" WHERE a.owner_id = ? AND e.period = ? AND e.kind IN ({marks})",
            *(payer_id, period, kind, *kinds),
        )
        return int(found)


@asynccontextmanager
async def open_bills(
    path: Path,
    clock: HandClock | None = None,
    standings: HandStandings | None = None,
    settings: config.Invoices = SELLER,
) -> AsyncIterator[Bills]:
    """A ledger over one file; opened twice on the same, it is a restart."""
    clock = clock or HandClock(MARCH_MS)
    async with opened(path, clock, standings or HandStandings(PRO)) as books:
        composer = Composer(settings, Tiers(config.Config()))
        yield Bills(
            books,
            composer,
            MonthClosing(books.database, clock, composer),
            Invoices(books.database, clock, composer),
        )
