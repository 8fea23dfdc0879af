"""What a payer's month lacks, booked by idempotent catch-up: credit, fees, expiries (I7).

Monthly credit follows what the tier gives: up by a grant, down by a reversal, never below what is
spent or held of it. So a month's credit is given once, whatever the payer's tier and seats did in
between. A fee follows the dearest that the payer was on, and stays.
"""

from app.clock import Clock, month_ms, period_of
from app.errors import InvalidRequest
from app.ledger.accounts import (
    SUM_NANO_USD_MAX,
    DueKind,
    EntryKind,
    GrantKind,
    HouseAccount,
)
from app.ledger.entries import CreditTerms, Grant, NewGrant
from app.ledger.journal import Journal
from app.ledger.wallets import NEVER_MS, LiveGrant, Wallet, Wallets, same_amount, shown

_SOURCES = {
    GrantKind.PURCHASED: (EntryKind.PURCHASE, HouseAccount.SOLD),
    GrantKind.PROMOTIONAL: (EntryKind.GRANT, HouseAccount.GRANTED),
    GrantKind.ADJUSTMENT: (EntryKind.ADJUSTMENT, HouseAccount.ADJUSTED),
}


class Booking:
    """Books on wallets; rows follow."""

    def __init__(self, wallets: Wallets, journal: Journal, clock: Clock) -> None:
        self._wallets = wallets
        self._journal = journal
        self._clock = clock

    def book(self, wallet: Wallet, terms: CreditTerms, at_ms: int) -> None:
        """Book what the month of ``at_ms`` lacks on these terms; nothing while the clock is in
        doubt. Cheap where nothing is lacking: every hold asks."""
        if (
            wallet.terms is terms
            and at_ms < wallet.booked_until_ms
            and wallet.booked == period_of(at_ms)
        ):
            return
        if self._clock.suspended:
            wallet.terms, wallet.booked = terms, ""
            return
        period = period_of(at_ms)
        starts_ms, ends_ms = month_ms(period)
        whole = self._book_credit(wallet, terms, period, starts_ms, ends_ms)
        self._book_fee(wallet, terms, period)
        until_ms = self._expire(wallet, self._clock.now_ms())
        wallet.terms = terms
        wallet.booked = period if whole else ""
        wallet.booked_until_ms = min(until_ms, ends_ms)

    def give(self, wallet: Wallet, new: NewGrant, starts_at_ms: int) -> Grant:
        """Purchased or promotional credit, once per reference."""
        found = wallet.find(new.kind, new.reference)
        before = (
            shown(wallet, found)
            if found is not None
            else self._wallets.closed_grant(wallet.payer_id, new.kind, new.reference)
        )
        if before is not None:
            return same_amount(before, new.amount_nano_usd)
        if new.expires_at_ms is not None and new.expires_at_ms <= starts_at_ms:
            raise InvalidRequest("The credit would expire before it begins.", param="expires")
        if wallet.credit + new.amount_nano_usd > SUM_NANO_USD_MAX:
            raise too_much()
        kind, source = _SOURCES[new.kind]
        grant = self._wallets.grant(
            wallet, new.kind, new.reference, starts_at_ms, new.expires_at_ms
        )
        grant.note = new.note
        subject = f"{new.kind.value}/{wallet.payer_id}/{new.reference}"
        self._raise(wallet, grant, new.amount_nano_usd, kind, source, subject, starts_at_ms)
        wallet.booked_until_ms = min(wallet.booked_until_ms, grant.expires_at_ms)
        return shown(wallet, grant)

    def _book_credit(
        self, wallet: Wallet, terms: CreditTerms, period: str, starts_ms: int, ends_ms: int
    ) -> bool:
        """Bring the month's credit to what the terms give; whether it is there."""
        target = terms.monthly_credit_nano_usd
        grant = wallet.find(GrantKind.MONTHLY, period)
        if grant is None:
            if self._wallets.closed_grant(wallet.payer_id, GrantKind.MONTHLY, period):
                return True  # its time is over
            grant = self._wallets.grant(wallet, GrantKind.MONTHLY, period, starts_ms, ends_ms)
            self._wallets.touch(wallet, wallet.overage)
        grant.note = terms.tier
        amount = target - grant.granted
        subject = f"{wallet.payer_id}/{period}/{self._journal.next_seq}"
        if amount > 0:
            kind, house = EntryKind.GRANT, HouseAccount.GRANTED
            self._raise(wallet, grant, amount, kind, house, subject, starts_ms)
        elif amount < 0:
            # All that is held has to fit what is valid now: a grant whose time is over only
            # waits for calls that began before its end.
            free = max(wallet.usable(self._clock.now_ms()) - wallet.held, 0)
            back = min(-amount, grant.left(), free)
            if back:
                grant.granted -= back
                wallet.credit -= back
                grant.dirty = True
                self._journal.enter(
                    EntryKind.REVERSAL, period, subject, grant.account, HouseAccount.GRANTED, back
                )
                self._wallets.touch(wallet, wallet.overage)
            return back == -amount or grant.left() == 0
        return True

    def _book_fee(self, wallet: Wallet, terms: CreditTerms, period: str) -> None:
        if not terms.fee_nano_usd:
            return
        due = self._wallets.due(wallet, period, DueKind.FEE)
        amount = terms.fee_nano_usd - due.amount
        if amount > 0:
            account = self._wallets.owe(wallet, due, amount)
            subject = f"{wallet.payer_id}/{period}/{self._journal.next_seq}"
            self._journal.enter(EntryKind.FEE, period, subject, account, HouseAccount.FEES, amount)

    def _expire(self, wallet: Wallet, now_ms: int) -> int:
        """Close the grants whose time is over; when the next one's is.

        A grant stays while a hold is open that was admitted before its end: the call may be paid
        from it, however late it settles.
        """
        oldest_ms = min(wallet.admitted.values(), default=NEVER_MS)
        next_ms = NEVER_MS
        for grant in list(wallet.grants):
            if grant.expires_at_ms > now_ms:
                next_ms = min(next_ms, grant.expires_at_ms)
            elif oldest_ms < grant.expires_at_ms:
                next_ms = 0
            else:
                self._close(wallet, grant)
        return next_ms

    def _close(self, wallet: Wallet, grant: LiveGrant) -> None:
        left = grant.left()
        if left:
            grant.expired += left
            wallet.credit -= left
            self._journal.enter(
                EntryKind.EXPIRY,
                period_of(grant.expires_at_ms - 1),
                f"grant/{grant.id}",
                grant.account,
                HouseAccount.EXPIRED,
                left,
            )
        self._wallets.close(wallet, grant)
        self._wallets.touch(wallet, wallet.overage)

    def _raise(
        self,
        wallet: Wallet,
        grant: LiveGrant,
        amount: int,
        kind: EntryKind,
        source: HouseAccount,
        subject: str,
        at_ms: int,
    ) -> None:
        grant.granted += amount
        grant.dirty = True
        wallet.credit += amount
        self._journal.enter(kind, period_of(at_ms), subject, source, grant.account, amount)
        self._wallets.touch(wallet, wallet.overage)


def too_much() -> InvalidRequest:
    """The refusal of an amount that the payer's sums could not hold."""
    return InvalidRequest(
        "With this the payer's sum would be more than four billion dollars. Book less.",
        param="amount_usd",
    )
