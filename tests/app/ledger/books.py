"""What the ledger's tests share: a clock moved by hand, requests, usage rows, an opened ledger."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.ids import new_call_id
from app.ledger.audit import Audit, audit
from app.ledger.entries import CreditTerms, HoldRequest, Outcome, UsageRow
from app.ledger.sqlite import SqliteLedger
from app.storage.database import Row, Transaction
from app.storage.sqlite import SqliteDatabase

PERIOD = "2026-11"
START_MS = 1_793_664_000_000  # 2026-11-03
FREE = CreditTerms(tier="free", monthly_credit_nano_usd=100_000_000, overage=False)
PRO = CreditTerms(tier="pro", monthly_credit_nano_usd=2_000_000_000, overage=True)
NOTHING = CreditTerms(tier="none", monthly_credit_nano_usd=0, overage=False)


class HandClock:
    """Time that moves when a test says so."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ns(self) -> int:
        return self.ms * 1_000_000


@dataclass
class Books:
    """An open store and a look behind it."""

    database: SqliteDatabase
    ledger: SqliteLedger
    clock: HandClock

    async def audit(self) -> Audit:
        return await self.database.write(audit)

    async def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        return await self.database.read(sql, params)


@asynccontextmanager
async def opened(path: Path, clock: HandClock | None = None) -> AsyncIterator[Books]:
    """The store over one file."""
    clock = clock or HandClock()
    database = SqliteDatabase(path, clock)
    ledger = SqliteLedger(database, clock)
    await database.open()
    try:
        yield Books(database, ledger, clock)
    finally:
        await database.close()


def statement(sql: str, *params: Any) -> Callable[[Transaction], list[Row]]:
    """A unit of one statement."""
    return lambda tx: tx.execute(sql, params)


def hold(
    amount: int,
    *,
    floor: int | None = None,
    payer: str = "user_ann",
    terms: CreditTerms = FREE,
    period: str = PERIOD,
    call_id: str | None = None,
    expires_at_ms: int = START_MS + 1_800_000,
) -> HoldRequest:
    """A request for a hold; all or nothing unless a floor is given."""
    return HoldRequest(
        call_id=call_id or new_call_id(),
        payer_id=payer,
        user_id=payer,
        key_id="key_1",
        model="acme/tiny",
        amount_nano_usd=amount,
        floor_nano_usd=amount if floor is None else floor,
        period=period,
        terms=terms,
        admitted_at_ms=START_MS,
        expires_at_ms=expires_at_ms,
    )


def used(call_id: str, *, payer: str = "user_ann", **fields: Any) -> UsageRow:
    """A usage row of that call."""
    return UsageRow(
        **{
            "call_id": call_id,
            "at_ms": START_MS,
            "user_id": payer,
            "key_id": "key_1",
            "payer_id": payer,
            "model": "acme/tiny",
            "provider": "mock",
            "outcome": Outcome.COMPLETED,
            "streamed": False,
            "attempts": 1,
            "input_tokens": 10,
            "output_tokens": 20,
            **fields,
        }
    )
