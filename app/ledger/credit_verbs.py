"""What moves money beside calls: credit that is given, corrections, endpoints' minutes, and what a
month lacks. Verbs on the ledger's image.
"""

from collections.abc import Iterable, Sequence

from app.clock import Clock, period_of
from app.errors import CallError, Conflict, InvalidRequest
from app.ledger.accounts import (
    AMOUNT_NANO_USD_MAX,
    SUM_NANO_USD_MAX,
    DueKind,
    EntryKind,
    GrantKind,
    HouseAccount,
)
from app.ledger.booking import too_much
from app.ledger.entries import Adjustment, Balance, EndpointMinute, Grant, NewGrant
from app.ledger.image import LedgerImage
from app.ledger.messages import usd_text
from app.ledger.standing import Standings
from app.ledger.store import InsufficientCredit
from app.ledger.wallets import Wallet, shown


class CreditVerbs:
    """Implements the verbs on credit of ``LedgerStore``."""

    def __init__(self, image: LedgerImage, standings: Standings, clock: Clock) -> None:
        self._image = image
        self._standings = standings
        self._clock = clock

    def balance(self, payer_id: str) -> Balance:
        """See ``LedgerStore.balance``."""
        now_ms = self._clock.now_ms()
        wallet = self._booked(payer_id, now_ms)
        if wallet.terms is None:
            raise AssertionError("a booked wallet has terms")
        period = period_of(now_ms)
        return Balance(
            payer_id=payer_id,
            period=period,
            grants=tuple(shown(wallet, grant) for grant in wallet.grants),
            credit_nano_usd=wallet.credit,
            held_nano_usd=wallet.held,
            overage_nano_usd=self._image.wallets.due(wallet, period, DueKind.OVERAGE).amount,
            terms=wallet.terms,
        )

    def give(self, new: NewGrant) -> Grant:
        """See ``LedgerStore.give``."""
        if new.kind not in (GrantKind.PURCHASED, GrantKind.PROMOTIONAL):
            raise InvalidRequest("Credit is given as purchased or promotional.", param="kind")
        _check_amount(new.amount_nano_usd)
        _check_texts(new.payer_id, new.reference, new.note)
        now_ms = self._clock.now_ms()
        return self._image.booking.give(self._booked(new.payer_id, now_ms), new, now_ms)

    def adjust(self, adjustment: Adjustment) -> None:
        """See ``LedgerStore.adjust``."""
        amount = adjustment.amount_nano_usd
        _check_amount(abs(amount))
        _check_texts(adjustment.id, adjustment.payer_id, adjustment.reason, adjustment.author)
        row = self._image.ask(
            "SELECT payer_id, amount_nano_usd FROM adjustments WHERE id = ?", (adjustment.id,)
        )
        if row:
            if tuple(row[0]) != (adjustment.payer_id, amount):
                raise Conflict(
                    f"There is another adjustment with the id {adjustment.id!r}.", param="id"
                )
            return
        now_ms = self._clock.now_ms()
        wallet, period = self._booked(adjustment.payer_id, now_ms), period_of(now_ms)
        if amount > 0:
            new = NewGrant(
                payer_id=adjustment.payer_id,
                kind=GrantKind.ADJUSTMENT,
                reference=adjustment.id,
                amount_nano_usd=amount,
                note=adjustment.reason,
            )
            self._image.booking.give(wallet, new, now_ms)
        else:
            self._take(wallet, adjustment, now_ms)
        self._image.ask(
            "INSERT INTO adjustments (id, payer_id, period, amount_nano_usd, reason, author, at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                adjustment.id,
                adjustment.payer_id,
                period,
                amount,
                adjustment.reason,
                adjustment.author,
                now_ms,
            ),
        )

    def bill_minutes(self, payer_id: str, minutes: Sequence[EndpointMinute]) -> int:
        """See ``LedgerStore.bill_minutes``."""
        for minute in minutes:
            if not 0 <= minute.amount_nano_usd <= AMOUNT_NANO_USD_MAX or minute.minute < 0:
                raise ValueError(f"a minute for {minute.amount_nano_usd} nano-USD is out of range")
            _check_texts(payer_id, minute.endpoint_id)
        image, billed = self._image, 0
        now_ms = self._clock.now_ms()
        wallet = self._booked(payer_id, now_ms)
        periods = {period_of(minute.minute * 60_000) for minute in minutes} | {period_of(now_ms)}
        owed = max(image.wallets.due(wallet, each, DueKind.ENDPOINT).amount for each in periods)
        if owed + sum(minute.amount_nano_usd for minute in minutes) > SUM_NANO_USD_MAX:
            raise too_much()
        for minute in minutes:
            period = self._open_period(payer_id, period_of(minute.minute * 60_000), now_ms)
            key = (minute.endpoint_id, minute.replica, minute.minute)
            if image.ask(
                "INSERT INTO endpoint_minutes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
                " RETURNING minute",
                (*key, payer_id, period, minute.amount_nano_usd),
            ):
                billed += minute.amount_nano_usd
                self._bill_minute(wallet, minute, period)
        return billed

    def catch_up(self, payer_ids: Iterable[str]) -> None:
        """See ``LedgerStore.catch_up``. A payer without terms (a tier that is gone) waits."""
        now_ms = self._clock.now_ms()
        for payer_id in payer_ids:
            try:
                self._booked(payer_id, now_ms)
            except CallError:
                continue

    def _open_period(self, payer_id: str, period: str, now_ms: int) -> str:
        """The month, or where its invoice is closed the present one: a closed one never changes."""
        closed = self._image.ask(
            "SELECT 1 FROM invoices WHERE payer_id = ? AND period = ?", (payer_id, period)
        )
        return period_of(now_ms) if closed else period

    def _bill_minute(self, wallet: Wallet, minute: EndpointMinute, period: str) -> None:
        if not minute.amount_nano_usd:
            return
        image = self._image
        due = image.wallets.due(wallet, period, DueKind.ENDPOINT)
        account = image.wallets.owe(wallet, due, minute.amount_nano_usd)
        image.journal.enter(
            EntryKind.ENDPOINT,
            period,
            f"{minute.endpoint_id}/{minute.replica}/{minute.minute}",
            account,
            HouseAccount.ENDPOINTS,
            minute.amount_nano_usd,
        )

    def _take(self, wallet: Wallet, adjustment: Adjustment, now_ms: int) -> None:
        """Take a debit from what no open hold needs, in burn order; the rest is owed."""
        image, rest, period = self._image, -adjustment.amount_nano_usd, period_of(now_ms)
        free = max(wallet.usable(now_ms) - wallet.held, 0)
        overage = wallet.terms is not None and wallet.terms.overage
        if rest > free and not overage:
            raise InsufficientCredit(
                f"The payer has {usd_text(free)} that can be taken; {usd_text(rest)} was asked"
                " for. Take less, or give credit first.",
                payer_id=wallet.payer_id,
                held_nano_usd=wallet.held,
                fits_when_released=rest <= wallet.credit,
            )
        owed = image.wallets.due(wallet, period, DueKind.OVERAGE).amount
        if owed + max(rest - free, 0) > SUM_NANO_USD_MAX:
            raise too_much()
        subject = f"adjustment/{adjustment.id}"
        free = min(free, rest)
        for grant in wallet.grants:
            amount = min(grant.left(), free) if grant.expires_at_ms > now_ms else 0
            if amount:
                grant.spent += amount
                grant.dirty = True
                wallet.credit -= amount
                free -= amount
                rest -= amount
                image.journal.enter(
                    EntryKind.ADJUSTMENT,
                    period,
                    subject,
                    grant.account,
                    HouseAccount.ADJUSTED,
                    amount,
                )
        if rest:
            due = image.wallets.due(wallet, period, DueKind.OVERAGE)
            account = image.wallets.owe(wallet, due, rest)
            image.journal.enter(
                EntryKind.ADJUSTMENT, period, subject, account, HouseAccount.ADJUSTED, rest
            )
        image.wallets.touch(wallet, wallet.overage)

    def _booked(self, payer_id: str, now_ms: int) -> Wallet:
        terms = self._standings.of_payer(self._image.ask, payer_id)
        wallet = self._image.wallets.of(payer_id)
        self._image.booking.book(wallet, terms, now_ms)
        return wallet


def _check_amount(amount_nano_usd: int) -> None:
    if not 0 < amount_nano_usd <= AMOUNT_NANO_USD_MAX:
        raise InvalidRequest(
            "An amount is more than $0 and at most a billion dollars.", param="amount_usd"
        )


def _check_texts(*texts: str) -> None:
    if not all(0 <= len(text) <= 1000 for text in texts):
        raise InvalidRequest("A text is longer than 1,000 characters.")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("A text is not valid Unicode.") from error
