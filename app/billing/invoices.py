"""Closed invoices as they are stored, and a preview of the month that goes on."""

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from app import config
from app.billing import invoice_lines
from app.billing.invoice_document import Invoice, InvoicePayer, Seller
from app.billing.invoice_facts import (
    OWN,
    BookFacts,
    JournalFacts,
    Question,
    book_facts,
    first_seq_of,
    journal_facts,
)
from app.billing.tiers import Tiers
from app.clock import Clock, period_of
from app.errors import NotFound, PermissionDenied
from app.storage.database import Database

PAGE_LENGTH_MAX = 500
_NEVER = 2**62
_COLUMNS = (
    "SELECT number, payer_id, period, closed_at_ms, total_nano_usd, document FROM invoices"
    " WHERE number < ?1 AND (?2 = '' OR period = ?2)"
)
_LIST = f"{_COLUMNS} ORDER BY number DESC LIMIT ?3"
_LIST_OF_PAYER = f"{_COLUMNS} AND payer_id = ?4 ORDER BY number DESC LIMIT ?3"


class InvoiceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A closed invoice in a list."""

    number: str
    sequence: int
    payer_id: str
    payer_name: str
    period: str
    closed_at_ms: int
    due_on: str | None
    total_due_nano_usd: int


class StoredInvoice(msgspec.Struct, frozen=True):
    """Whose invoice it is, and the document, byte by byte as it was stored."""

    payer_id: str
    document: bytes


class _Names(msgspec.Struct, frozen=True):
    """What a list shows of a document."""

    class _Payer(msgspec.Struct, frozen=True):
        name: str

    number: str
    due_on: str | None
    payer: _Payer


class Composer:
    """Makes the document of a month from the facts."""

    def __init__(self, settings: config.Invoices, tiers: Tiers) -> None:
        self._settings = settings
        self._tiers = tiers

    def lines(
        self, period: str, payer_id: str, journal: JournalFacts, books: BookFacts
    ) -> invoice_lines.Lines:
        """The body, and whether it adds up."""
        payer = _payer(payer_id, books)
        return invoice_lines.build(period, payer, self._unit_price(payer.tier), journal, books)

    def invoice(
        self,
        period: str,
        lines: invoice_lines.Lines,
        *,
        sequence: int | None = None,
        closed_at_ms: int | None = None,
    ) -> Invoice:
        """The whole document; without a sequence number it is a preview."""
        payer = lines.payer
        return Invoice(
            number=None if sequence is None else f"{self._settings.number_prefix}{sequence}",
            sequence=sequence,
            final=sequence is not None,
            period=period,
            closed_at_ms=closed_at_ms,
            due_on=None if closed_at_ms is None else self._due_on(payer.tier, closed_at_ms),
            seller=Seller(
                name=self._settings.seller_name,
                address=tuple(self._settings.seller_address),
                note=self._settings.currency_note,
            ),
            payer=payer,
            usage=lines.usage,
            fees=lines.fees,
            endpoints=lines.endpoints,
            adjustments=lines.adjustments,
            credit=lines.credit,
            totals=lines.totals,
        )

    def _unit_price(self, tier: str) -> int:
        try:
            return self._tiers.price_of(tier, 1)
        except PermissionDenied:  # a tier that is not configured any more
            return 0

    def _due_on(self, tier: str, closed_at_ms: int) -> str:
        try:
            days = self._tiers.invoice_days(tier)
        except PermissionDenied:
            days = 0
        due = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=closed_at_ms, days=days)
        return due.date().isoformat()


class Invoices:
    """The invoices table, for reading."""

    def __init__(self, database: Database, clock: Clock, composer: Composer) -> None:
        self._database = database
        self._clock = clock
        self._composer = composer
        self._one_at_a_time = asyncio.Lock()

    async def list(
        self,
        *,
        payer_id: str | None = None,
        period: str = "",
        before: int | None = None,
        limit: int = PAGE_LENGTH_MAX,
    ) -> list[InvoiceSummary]:
        """Up to ``limit`` invoices, newest first, from before a sequence number."""
        first, most = before or _NEVER, min(limit, PAGE_LENGTH_MAX)
        if payer_id is None:
            rows = await self._database.read(_LIST, (first, period, most))
        else:
            rows = await self._database.read(_LIST_OF_PAYER, (first, period, most, payer_id))
        return [_summary(row) for row in rows]

    async def numbered(self, number: str) -> StoredInvoice:
        """The invoice with this number: as it stands on it, or the sequence number alone.

        Raises NotFound.
        """
        digits = re.search(r"[0-9]{1,18}\Z", number, re.ASCII)
        tails = {int(digits[0][at:]) for at in range(len(digits[0]))} if digits else set()
        marks = ",".join("?" * len(tails))
        rows = await self._database.read(
            f"SELECT number, payer_id, document FROM invoices WHERE number IN ({marks})",  # noqa: S608
            sorted(tails),
        )
        by_name = [row for row in rows if _NAMES.decode(row[2]).number == number]
        by_sequence = [row for row in rows if str(row[0]) == number]
        for _, payer_id, document in by_name + by_sequence:
            return StoredInvoice(payer_id, document)
        raise unknown_invoice(number)

    async def preview(self, payer_id: str) -> bytes:
        """The document that the current month would have if it ended now; it is not final.

        One at a time: each reads the month's part of the journal.
        """
        period = period_of(self._clock.now_ms())
        async with self._one_at_a_time:
            question = Question(period=period, first_seq=await first_seq_of(self._database, period))
            rows = await self._database.read(OWN, question.of_payer(payer_id, endpoints=True))
        books, journal = book_facts(rows), journal_facts(rows).get(payer_id)
        if not books.payer:
            raise NotFound("There is no user or org with this id any more.", param="payer")
        journal = journal or JournalFacts([], [])
        lines = self._composer.lines(period, payer_id, journal, books)
        return msgspec.json.encode(self._composer.invoice(period, lines))


def unknown_invoice(number: str) -> NotFound:
    """The error for an invoice that does not exist, or is none of the caller's business."""
    return NotFound(
        f"There is no invoice {number[:64]!a}; `turnpike invoices list` and GET /api/invoices show"
        " yours."
    )


def _payer(payer_id: str, books: BookFacts) -> InvoicePayer:
    """Who pays, by name; one that is gone has its id only."""
    for _, name, kind, tier, seats in books.payer:
        return InvoicePayer(id=payer_id, name=name, kind=kind, tier=tier, seats=seats)
    return InvoicePayer(id=payer_id, name=payer_id, kind="user", tier="", seats=1)


_NAMES = msgspec.json.Decoder(_Names)


def _summary(row: Sequence[Any]) -> InvoiceSummary:
    sequence, payer_id, period, closed_at_ms, total, document = row
    names = _NAMES.decode(document)
    return InvoiceSummary(
        number=names.number,
        sequence=sequence,
        payer_id=payer_id,
        payer_name=names.payer.name,
        period=period,
        closed_at_ms=closed_at_ms,
        due_on=names.due_on,
        total_due_nano_usd=total,
    )
