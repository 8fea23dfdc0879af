"""Closes months: one invoice per payer and UTC month, made by catch-up, numbered without gaps.

Running it any number of times, late, twice at once or after a crash changes nothing more: the
invoice's row says that the month is closed. Months are closed in their order, and none while the
one before it has open holds, so the last invoice tells where to go on.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from app.billing.invoice_facts import (
    BOOKS,
    JOURNAL,
    OWN_JOURNAL,
    JournalFacts,
    Question,
    book_facts,
    first_seq_of,
    journal_facts,
)
from app.billing.invoice_lines import Fold, Lines, total_by_lines
from app.billing.invoices import Composer
from app.clock import Clock, month_ms, period_of
from app.errors import TurnpikeError
from app.ledger.accounts import EntryKind
from app.storage.database import Database, Transaction

GRACE_MS = 60_000
"""A call that was admitted in a month's last moment may wait for credit before it places its hold:
for this long after its end a month is left alone."""
PAYERS_PER_FOLD = 20_000
"""The month's entries are read once for so many payers."""
UNITS_AT_ONCE = 64
"""So many invoices share one commit."""
MISMATCH = "invoice_mismatch"
"""The kind of the event: an invoice that was not made because the books do not add up."""

_PAYERS = (
    "SELECT DISTINCT owner_id FROM accounts WHERE owner_id > ? AND owner_id <> 'house'"
    " ORDER BY owner_id LIMIT ?"
)
# The last invoice's month may be half done; before it, those with open holds, and refused ones.
_OLDEST = f"""
SELECT period FROM (SELECT period FROM invoices ORDER BY number DESC LIMIT 1)
UNION ALL SELECT min(period) FROM holds
UNION ALL SELECT min(period) FROM events e WHERE kind = '{MISMATCH}' AND NOT EXISTS
    (SELECT 1 FROM invoices i WHERE i.payer_id = e.subject_id AND i.period = e.period)
"""  # noqa: S608
_REFUSE = (
    "INSERT OR IGNORE INTO events (at_ms, kind, scope, subject_id, period, amount_nano_usd,"
    " limit_nano_usd) VALUES (?, ?, 'payer', ?, ?, ?, ?)"
)

log = logging.getLogger(__name__)


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did: numbers of the invoices that it made; payers and months (``PAYER PERIOD``)
    that wait for open holds, and that were refused because the books do not add up."""

    invoices: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class _Outcome(msgspec.Struct, frozen=True):
    """How one payer's month went: at most one of these; neither where it was closed before."""

    number: str = ""
    waits: bool = False
    faults: tuple[str, ...] = ()


class MonthClosing:
    """The catch-up."""

    def __init__(self, database: Database, clock: Clock, composer: Composer) -> None:
        self._database = database
        self._clock = clock
        self._composer = composer
        self._one_at_a_time = asyncio.Lock()
        self._closed_before = ""  # months before this one need no look

    async def run(self) -> Closed:
        """Close what can be closed by now; nothing while the time is in doubt."""
        async with self._one_at_a_time:
            current = period_of(self._clock.now_ms() - GRACE_MS)
            if self._clock.suspended or current <= self._closed_before:
                return Closed()
            done: list[tuple[str, str, _Outcome]] = []
            for period in await self._open_months(current):
                month = await self._close_month(period)
                done += month
                if any(outcome.waits for _, _, outcome in month):
                    break
            if all(outcome.number for _, _, outcome in done):
                self._closed_before = current
        return Closed(
            invoices=tuple(outcome.number for _, _, outcome in done if outcome.number),
            waiting=tuple(f"{payer} {period}" for payer, period, out in done if out.waits),
            refused=tuple(f"{payer} {period}" for payer, period, out in done if out.faults),
        )

    async def _open_months(self, current: str) -> Sequence[str]:
        """The months before ``current`` that may lack an invoice, oldest first."""
        found = [row[0] for row in await self._database.read(_OLDEST) if row[0] is not None]
        invoices = await self._database.read("SELECT 1 FROM invoices LIMIT 1")
        if not invoices:
            # The first entry may be of a later month than a call that ended after it.
            first = await self._database.read("SELECT period FROM entries ORDER BY seq LIMIT 1")
            found += [_before(row[0]) for row in first]
        if not found:
            return []
        months = [min(found)]
        while months[-1] < current:
            months.append(period_of(month_ms(months[-1])[1]))
        return [month for month in months if month < current]

    async def _close_month(self, period: str) -> list[tuple[str, str, _Outcome]]:
        question = Question(period=period, first_seq=await first_seq_of(self._database, period))
        found: list[tuple[str, str, _Outcome]] = []
        last = ""
        while True:
            page = await self._database.read(_PAYERS, (last, PAYERS_PER_FOLD))
            if not page:
                return found
            first, last = page[0][0], page[-1][0]
            rows = await self._database.read(JOURNAL, question.of_range(first, last))
            journals = journal_facts(rows)
            closed = await self._database.read(
                "SELECT payer_id FROM invoices WHERE payer_id BETWEEN ? AND ? AND period = ?",
                (first, last, period),
            )
            for (payer_id,) in closed:
                journals.pop(payer_id, None)
            due = [payer for payer, facts in journals.items() if Fold(facts).is_billable()]
            due.sort()
            for at in range(0, len(due), UNITS_AT_ONCE):
                batch = due[at : at + UNITS_AT_ONCE]
                outcomes = await asyncio.gather(
                    *(self._try(question, payer, journals[payer]) for payer in batch)
                )
                found += [
                    (payer, period, outcome)
                    for payer, outcome in zip(batch, outcomes, strict=True)
                    if outcome != _Outcome()
                ]

    async def _try(self, question: Question, payer_id: str, journal: JournalFacts) -> _Outcome:
        """As ``_close``; a fault with one payer's books is no reason to keep the others waiting."""
        try:
            return await self._close(question, payer_id, journal)
        except TurnpikeError:  # the ledger has stopped
            raise
        except Exception as fault:
            log.exception("the invoice of %s for %s cannot be made", payer_id, question.period)
            refusal = (self._clock.now_ms(), MISMATCH, payer_id, question.period, 0, 0)
            await self._database.write(lambda tx: tx.execute(_REFUSE, refusal))
            return _Outcome(faults=(repr(fault),))

    async def _close(self, question: Question, payer_id: str, journal: JournalFacts) -> _Outcome:
        """Close one payer's month, if it can be."""
        outcome = await self._database.write(self._unit(question, payer_id, journal, last=False))
        if outcome.faults:
            # Entries may have come since the journal was read; a second reading decides.
            rows = await self._database.read(OWN_JOURNAL, question.of_range(payer_id, payer_id))
            journal = journal_facts(rows)[payer_id]
            outcome = await self._database.write(self._unit(question, payer_id, journal, last=True))
        if outcome.faults:
            log.error(
                "the invoice of %s for %s is refused, the books differ: %s; run `turnpike ledger"
                " audit`",
                payer_id,
                question.period,
                "; ".join(outcome.faults),
            )
        return outcome

    def _unit(
        self, question: Question, payer_id: str, journal: JournalFacts, *, last: bool
    ) -> Callable[[Transaction], _Outcome]:
        """The transaction: look whether it may be closed, add up in both ways, take a number."""
        fold = Fold(journal)
        endpoints = fold.taken(EntryKind.ENDPOINT) > 0

        def close(tx: Transaction) -> _Outcome:
            period = question.period
            if tx.execute(
                "SELECT 1 FROM invoices WHERE payer_id = ? AND period = ?", (payer_id, period)
            ):
                return _Outcome()
            books = book_facts(tx.execute(BOOKS, question.of_payer(payer_id, endpoints=endpoints)))
            if books.open_holds:
                return _Outcome(waits=True)
            lines = self._composer.lines(period, payer_id, journal, books)
            now_ms = self._clock.now_ms()
            if lines.faults:
                if last:
                    amounts = (total_by_lines(lines.totals), lines.totals.total_due_nano_usd)
                    tx.execute(_REFUSE, (now_ms, MISMATCH, payer_id, period, *amounts))
                return _Outcome(faults=lines.faults)
            return _Outcome(number=self._insert(tx, now_ms, period, lines))

        return close

    def _insert(self, tx: Transaction, now_ms: int, period: str, lines: Lines) -> str:
        ((sequence,),) = tx.execute("SELECT coalesce(max(number), 0) + 1 FROM invoices")
        invoice = self._composer.invoice(period, lines, sequence=sequence, closed_at_ms=now_ms)
        tx.execute(
            "INSERT INTO invoices (number, payer_id, period, closed_at_ms, total_nano_usd,"
            " document) VALUES (?, ?, ?, ?, ?, ?)",
            (
                sequence,
                lines.payer.id,
                period,
                now_ms,
                lines.totals.total_due_nano_usd,
                msgspec.json.encode(invoice),
            ),
        )
        return str(invoice.number)


def _before(period: str) -> str:
    return period_of(month_ms(period)[0] - 1)
