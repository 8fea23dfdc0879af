"""A payer's month from the facts: every line, the sums in both ways, whether they agree. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from app.billing.invoice_document import (
    AdjustmentLine,
    CreditLine,
    EndpointLine,
    FeeLine,
    InvoicePayer,
    Totals,
    UsageLine,
)
from app.billing.invoice_facts import MEASURED, BookFacts, GrantFact, JournalFacts
from app.clock import month_ms
from app.ledger.accounts import DueKind, EntryKind

_GIVES = (EntryKind.GRANT, EntryKind.PURCHASE, EntryKind.ADJUSTMENT)
_USES = (EntryKind.CHARGE, EntryKind.ENDPOINT)


class Fold:
    """The journal's month of one payer: amounts by account, kind and direction."""

    def __init__(self, facts: JournalFacts) -> None:
        self._sums = {
            (fact.account_id, fact.kind, bool(fact.taken), bool(fact.later)): fact.amount
            for fact in facts.moved
        }
        self._grants = {grant.account_id for grant in facts.grants}

    def taken(self, *kinds: EntryKind, account: int | None = None) -> int:
        """What entries of the month took out of the account, or out of all."""
        return self._sum(kinds, account, taken=True, later=False)

    def given(self, *kinds: EntryKind, account: int | None = None) -> int:
        """What entries of the month brought into the account, or into all."""
        return self._sum(kinds, account, taken=False, later=False)

    def net_later(self, account: int) -> int:
        """What later months brought into an account, less what they took."""
        kinds = tuple(EntryKind)
        into = self._sum(kinds, account, taken=False, later=True)
        return into - self._sum(kinds, account, taken=True, later=True)

    def is_billable(self) -> bool:
        """Whether the month has something to show: not only the expiry of unused credit."""
        return any(
            not later and kind not in (EntryKind.EXPIRY, EntryKind.REVERSAL)
            for _, kind, _, later in self._sums
        )

    def _sum(
        self, kinds: tuple[EntryKind, ...], account: int | None, *, taken: bool, later: bool
    ) -> int:
        return sum(
            amount
            for (of, kind, out, behind), amount in self._sums.items()
            if kind in kinds and out is taken and behind is later and account in (None, of)
        )


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an invoice. ``faults`` says where two ways of adding up differ."""

    payer: InvoicePayer
    usage: tuple[UsageLine, ...]
    fees: tuple[FeeLine, ...]
    endpoints: tuple[EndpointLine, ...]
    adjustments: tuple[AdjustmentLine, ...]
    credit: tuple[CreditLine, ...]
    totals: Totals
    faults: tuple[str, ...]


def build(
    period: str, payer: InvoicePayer, unit_nano_usd: int, journal: JournalFacts, books: BookFacts
) -> Lines:
    """The lines of a month. ``unit_nano_usd`` is the tier's price of one seat, or one account."""
    fold = Fold(journal)
    usage = tuple(_usage(row) for row in books.usage)
    endpoints = tuple(
        EndpointLine(endpoint_id=row[0], minutes=row[1], amount_nano_usd=row[2])
        for row in books.endpoints
    )
    adjustments = tuple(
        AdjustmentLine(id=row[0], at_ms=row[1], reason=row[2], amount_nano_usd=row[3])
        for row in books.adjustments
    )
    dues = dict.fromkeys(DueKind, 0) | {DueKind(due.kind): due.amount for due in books.dues}
    folded = _folded_dues(fold, books)
    fees = _fees(payer.tier, unit_nano_usd, dues[DueKind.FEE])
    credit = tuple(
        line for grant in journal.grants if (line := _credit(period, grant, fold)) is not None
    )
    adjustments_due = sum(
        fold.taken(EntryKind.ADJUSTMENT, account=due.account_id) for due in books.dues
    )
    totals = Totals(
        usage_nano_usd=sum(line.cost_nano_usd for line in usage),
        endpoints_nano_usd=sum(line.amount_nano_usd for line in endpoints),
        fees_nano_usd=sum(line.amount_nano_usd for line in fees),
        adjustments_due_nano_usd=adjustments_due,
        credit_used_nano_usd=sum(line.used_nano_usd for line in credit),
        overage_due_nano_usd=folded[DueKind.OVERAGE],
        endpoints_due_nano_usd=folded[DueKind.ENDPOINT],
        fees_due_nano_usd=folded[DueKind.FEE],
        total_due_nano_usd=sum(folded.values()),
    )
    return Lines(
        payer=payer,
        usage=usage,
        fees=fees,
        endpoints=endpoints,
        adjustments=adjustments,
        credit=credit,
        totals=totals,
        faults=tuple(_faults(fold, totals, dues, folded, adjustments)),
    )


def total_by_lines(totals: Totals) -> int:
    """What is due as the lines add up; the journal's figure is in ``totals`` itself."""
    return (
        totals.usage_nano_usd
        + totals.endpoints_nano_usd
        + totals.fees_nano_usd
        + totals.adjustments_due_nano_usd
        - totals.credit_used_nano_usd
    )


def _faults(
    fold: Fold,
    totals: Totals,
    dues: Mapping[DueKind, int],
    folded: Mapping[DueKind, int],
    adjustments: tuple[AdjustmentLine, ...],
) -> list[str]:
    adjusted = fold.given(EntryKind.ADJUSTMENT) - fold.taken(EntryKind.ADJUSTMENT)
    pairs = [
        ("usage", totals.usage_nano_usd, fold.taken(EntryKind.CHARGE, EntryKind.OVERAGE)),
        ("endpoints", totals.endpoints_nano_usd, fold.taken(EntryKind.ENDPOINT)),
        ("adjustments", sum(line.amount_nano_usd for line in adjustments), adjusted),
        ("the total due", total_by_lines(totals), totals.total_due_nano_usd),
        *((f"the due {kind.value}", dues[kind], folded[kind]) for kind in DueKind),
    ]
    return [
        f"{what}: {found} nano-USD in the tables, {booked} in the journal"
        for what, found, booked in pairs
        if found != booked
    ]


def _folded_dues(fold: Fold, books: BookFacts) -> dict[DueKind, int]:
    """What the journal says that is owed. Fees and overage are entries of their own; of endpoints
    it is what their due's account gave."""
    endpoint = sum(
        fold.taken(EntryKind.ENDPOINT, account=due.account_id)
        for due in books.dues
        if due.kind == DueKind.ENDPOINT
    )
    adjusted = sum(
        fold.taken(EntryKind.ADJUSTMENT, account=due.account_id)
        for due in books.dues
        if due.kind == DueKind.OVERAGE
    )
    return {
        DueKind.OVERAGE: fold.taken(EntryKind.OVERAGE) + adjusted,
        DueKind.FEE: fold.taken(EntryKind.FEE),
        DueKind.ENDPOINT: endpoint,
    }


def _usage(row: Sequence[Any]) -> UsageLine:
    provider, model, calls, byok_calls, *halves, cost_nano_usd = row
    measured = {
        name: (halves[2 * at] << 32) + halves[2 * at + 1] for at, name in enumerate(MEASURED)
    }
    return UsageLine(
        provider=provider,
        model=model,
        calls=calls,
        byok_calls=byok_calls,
        cost_nano_usd=cost_nano_usd,
        **measured,
    )


def _fees(tier: str, unit_nano_usd: int, amount: int) -> tuple[FeeLine, ...]:
    if not amount:
        return ()
    quantity = 1
    if unit_nano_usd and amount % unit_nano_usd == 0:
        quantity = amount // unit_nano_usd
    line = FeeLine(
        tier=tier,
        quantity=quantity,
        unit_nano_usd=amount // quantity,
        amount_nano_usd=amount,
    )
    return (line,)


def _credit(period: str, grant: GrantFact, fold: Fold) -> CreditLine | None:
    """What became of a grant, None where nothing did and nothing is left.

    What is left is that of the month's end, whether or not its expiry is booked yet. A call at the
    very end may be paid from a grant of the next month: that has nothing left of this one.
    """
    account = grant.account_id
    given = fold.given(*_GIVES, account=account) - fold.taken(EntryKind.REVERSAL, account=account)
    used = fold.taken(*_USES, account=account)
    adjusted = fold.taken(EntryKind.ADJUSTMENT, account=account)
    expired = fold.taken(EntryKind.EXPIRY, account=account)
    left = max(grant.left - fold.net_later(account), 0)
    if grant.expires_at_ms is not None and grant.expires_at_ms <= month_ms(period)[1]:
        expired, left = expired + left, 0
    if not (given or used or adjusted or expired or left):
        return None
    return CreditLine(
        grant_id=grant.id,
        kind=grant.kind,
        reference=grant.reference,
        note=grant.note,
        expires_at_ms=grant.expires_at_ms,
        given_nano_usd=given,
        used_nano_usd=used,
        adjusted_nano_usd=adjusted,
        expired_nano_usd=expired,
        left_nano_usd=left,
    )
