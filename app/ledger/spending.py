"""How much room a call has, and what its cost is paid from. Changes wallets; rows follow.

``terms_now`` gives the terms that a payer is on at this moment, None for a payer without: a hold
that was placed on a hard stop may be settled on terms that have none.
"""

from collections.abc import Callable

from app.ledger.accounts import SUM_NANO_USD_MAX, DueKind, EntryKind, HouseAccount
from app.ledger.entries import CreditTerms
from app.ledger.journal import Journal
from app.ledger.open_holds import OpenHold
from app.ledger.wallets import LiveGrant, Wallet, Wallets

UNBOUNDED = 2**62


def credit_room(
    wallets: Wallets, wallet: Wallet, terms: CreditTerms, at_ms: int, period: str
) -> int:
    """What a new hold can take of the payer's money; below zero where more is held than there is.

    All open holds count, whatever their month: that may refuse a moment too long, and never lets
    too much through.
    """
    if terms.overage and terms.overage_limit_nano_usd is None:
        return UNBOUNDED
    room = wallet.usable(at_ms) - wallet.held
    if terms.overage_limit_nano_usd is not None and terms.overage:
        due = wallets.due(wallet, period, DueKind.OVERAGE)
        room += terms.overage_limit_nano_usd - due.amount
    return room


def chargeable(
    wallets: Wallets,
    hold: OpenHold,
    cost: int,
    now_ms: int,
    terms_now: Callable[[Wallet], CreditTerms | None],
) -> int:
    """How much the payer bears of a cost above the hold: the hold, and what room is left (I6)."""
    wallet, others = hold.wallet, hold.wallet.held - hold.amount
    terms = terms_now(wallet)
    most = UNBOUNDED
    if terms is None or not (hold.overage or terms.overage):
        most = wallet.usable(now_ms) - others
    elif terms.overage_limit_nano_usd is not None:
        due = wallets.due(wallet, hold.period, DueKind.OVERAGE)
        most = wallet.usable(now_ms) + terms.overage_limit_nano_usd - due.amount - others
    for month in hold.limits:
        most = min(most, month.amount - month.posted - (month.held - hold.amount))
    return min(cost, max(most, hold.amount))


def pay(
    wallets: Wallets,
    journal: Journal,
    hold: OpenHold,
    admitted_at_ms: int,
    charge: int,
    terms_now: Callable[[Wallet], CreditTerms | None],
) -> tuple[str, int]:
    """Take the charge from the payer's grants in burn order, the rest as overage.

    The hold has been freed. Returns what paid, as the usage row says it, and what nobody could:
    that can only happen past a hard stop, and is the house's.
    """
    wallet, call_id, period = hold.wallet, hold.call_id, hold.period
    paid: list[str] = []
    rest = charge
    for grant in _in_order(wallet, admitted_at_ms):
        amount = min(rest, grant.left())
        if amount > 0:
            grant.spent += amount
            grant.dirty = True
            wallet.credit -= amount
            rest -= amount
            paid.append(f"{grant.id}:{amount}")
            journal.enter(
                EntryKind.CHARGE, period, call_id, grant.account, HouseAccount.COGS, amount
            )
        if not rest:
            return ",".join(paid), 0
    if not hold.overage:
        terms = terms_now(wallet)
        if terms is None or not terms.overage:
            return ",".join(paid), rest
    due = wallets.due(wallet, period, DueKind.OVERAGE)
    if due.amount + rest > SUM_NANO_USD_MAX:
        return ",".join(paid), rest
    account = wallets.owe(wallet, due, rest)
    journal.enter(EntryKind.OVERAGE, period, call_id, account, HouseAccount.COGS, rest)
    paid.append(f"due:{rest}")
    return ",".join(paid), 0


def _in_order(wallet: Wallet, admitted_at_ms: int) -> list[LiveGrant]:
    """The grants that may pay a call, in burn order; those that began after it come last."""
    usable = [grant for grant in wallet.grants if grant.expires_at_ms > admitted_at_ms]
    if len(usable) > 1:
        usable.sort(key=lambda grant: grant.starts_at_ms > admitted_at_ms)
    return usable
