"""What the ledger's tests share: a clock moved by hand, requests, usage rows, an opened ledger."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import NotFound, PermissionDenied
from app.ids import new_call_id
from app.ledger.audit import Audit, audit
from app.ledger.entries import CreditTerms, HoldRequest, Limit, Outcome, Standing, UsageRow
from app.ledger.sqlite import SqliteLedger
from app.ledger.standing import Ask
from app.storage.database import Row, Transaction
from app.storage.sqlite import SqliteDatabase

PERIOD = "2026-11"
START_MS = 1_793_664_000_000  # 2026-11-03
DECEMBER_MS = 1_796_083_200_000  # 2026-12-01
FREE = CreditTerms(tier="free", monthly_credit_nano_usd=100_000_000, overage=False)
PRO = CreditTerms(tier="pro", monthly_credit_nano_usd=2_000_000_000, overage=True)
NOTHING = CreditTerms(tier="none", monthly_credit_nano_usd=0, overage=False)
PAYERS = ("user_", "org_")


class HandStandings:
    """Who pays on which terms, as a test says. Implements ``Standings``.

    ``bill_to`` names the payer itself; ``members`` bounds who may, where it has the payer.
    """

    def __init__(self, terms: CreditTerms = FREE) -> None:
        self.default = terms
        self.terms: dict[str, CreditTerms] = {}
        self.limits: dict[tuple[str, str], Limit] = {}
        self.members: dict[str, set[str]] = {}
        self.providers_off: dict[str, dict[str, str]] = {}
        self.models_off: dict[str, dict[str, str]] = {}

    def of_caller(self, ask: Ask, user_id: str, key_id: str, bill_to: str | None) -> Standing:
        payer, _, group = (bill_to or user_id).partition("#")
        if user_id not in self.members.get(payer, {user_id}):
            raise PermissionDenied("not a member", code="not_a_member")
        scopes = (
            ("key", key_id),
            ("user", user_id),
            ("member", f"{payer}/{user_id}"),
            ("group", group),
            ("payer", payer),
        )
        return Standing(
            payer_id=payer,
            payer_name=payer,
            terms=self.of_payer(ask, payer),
            group_id=group,
            limits=tuple(self.limits[scope] for scope in scopes if scope in self.limits),
            providers_off=self.providers_off.get(payer, {}),
            models_off=self.models_off.get(payer, {}),
        )

    def of_payer(self, ask: Ask, payer_id: str) -> CreditTerms:
        if not payer_id.startswith(PAYERS):
            raise NotFound("no such payer")
        return self.terms.get(payer_id, self.default)


class HandClock:
    """Time that moves when a test says so."""

    suspended = False

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
    standings: HandStandings

    async def changed(self) -> None:
        """Let the ledger see what a test changed in the standings: as a plain unit does."""
        await self.database.write(lambda tx: None)

    async def audit(self) -> Audit:
        return await self.database.write(audit)

    async def rows(self, sql: str, *params: Any) -> list[tuple[Any, ...]]:
        return await self.database.read(sql, params)


@asynccontextmanager
async def opened(
    path: Path, clock: HandClock | None = None, standings: HandStandings | None = None
) -> AsyncIterator[Books]:
    """The store over one file."""
    clock, standings = clock or HandClock(), standings or HandStandings()
    database = SqliteDatabase(path, clock)
    ledger = SqliteLedger(database, clock, standings)
    await database.open()
    try:
        yield Books(database, ledger, clock, standings)
    finally:
        await database.close()


def statement(sql: str, *params: Any) -> Callable[[Transaction], list[Row]]:
    """A unit of one statement."""
    return lambda tx: tx.execute(sql, params)


def hold(
    amount: int,
    *,
    floor: int | None = None,
    user: str = "user_ann",
    bill_to: str | None = None,
    call_id: str | None = None,
    admitted_at_ms: int = START_MS,
    expires_at_ms: int | None = None,
    **fields: Any,
) -> HoldRequest:
    """A request for a hold; all or nothing unless a floor is given."""
    return HoldRequest(
        **{
            "call_id": call_id or new_call_id(),
            "user_id": user,
            "key_id": "key_1",
            "bill_to": bill_to,
            "offers": (("mock", "acme/tiny"),),
            "amount_nano_usd": amount,
            "floor_nano_usd": amount if floor is None else floor,
            "admitted_at_ms": admitted_at_ms,
            "expires_at_ms": admitted_at_ms + 1_800_000 if expires_at_ms is None else expires_at_ms,
            **fields,
        }
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
