"""Events for people: a credit or a limit is nearly (80 %) or wholly (100 %) used up.

Each is recorded once a month in the transaction that brought it about; delivering them is
``app.billing.events``'s work.
"""

from app.ledger.limit_months import LimitMonth
from app.ledger.open_holds import OpenHold
from app.ledger.rows import LedgerRows
from app.ledger.wallets import Wallet

_SHARES = (80, 100)


def spent(rows: LedgerRows, hold: OpenHold, at_ms: int) -> None:
    """A call was charged: see which marks it passed."""
    for month in hold.limits:
        for share in _SHARES:
            if month.told < share and month.posted * 100 >= month.amount * share:
                _tell_limit(rows, month, share, at_ms)
    wallet = hold.wallet
    if ("credit_100", hold.period) in wallet.told:
        return
    granted = used = 0
    for grant in wallet.grants:
        granted += grant.granted - grant.expired
        used += grant.spent
    for share in _SHARES:
        if granted and used * 100 >= granted * share:
            _tell_credit(rows, wallet, share, hold.period, used, granted, at_ms)


def exhausted(
    rows: LedgerRows, wallet: Wallet, narrowest: LimitMonth | None, period: str, at_ms: int
) -> None:
    """A call was refused for good: that limit, or the credit, is as good as used up."""
    if narrowest is not None:
        if narrowest.posted * 100 >= narrowest.amount * _SHARES[0]:
            _tell_limit(rows, narrowest, 100, at_ms)
        return
    granted = sum(grant.granted - grant.expired for grant in wallet.grants)
    used = sum(grant.spent for grant in wallet.grants)
    if used * 100 >= granted * _SHARES[0]:
        _tell_credit(rows, wallet, 100, period, used, granted, at_ms)


def _tell_limit(rows: LedgerRows, month: LimitMonth, share: int, at_ms: int) -> None:
    if month.told >= share:
        return
    month.told = share
    limit = month.limit
    rows.events.add(
        (
            at_ms,
            f"limit_{share}",
            limit.scope,
            limit.subject_id,
            month.period,
            month.posted,
            month.amount,
        )
    )


def _tell_credit(
    rows: LedgerRows,
    wallet: Wallet,
    share: int,
    period: str,
    used: int,
    granted: int,
    at_ms: int,
) -> None:
    kind = f"credit_{share}"
    if (kind, period) in wallet.told:
        return
    wallet.told.add((kind, period))
    rows.events.add((at_ms, kind, "payer", wallet.payer_id, period, used, granted))
