"""What a payer without credit is told: exact amounts, and what to do next."""

from app.ledger.entries import HoldRequest, Standing
from app.ledger.limit_months import LimitMonth
from app.ledger.store import InsufficientCredit
from app.ledger.wallets import Wallet

NANO_PER_USD = 10**9
_WHOSE = {
    "key": "of this key",
    "user": "of this user",
    "member": "of this user in the organisation",
    "group": "of the resource group",
    "payer": "of the payer",
}


def decimal_usd(amount_nano_usd: int, sign: str = "") -> str:
    """``0.10``, ``-0.000000001``: exact USD, at least two decimals, never with an exponent."""
    dollars, nano = divmod(abs(amount_nano_usd), NANO_PER_USD)
    decimals = f"{nano:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount_nano_usd < 0 else ''}{sign}{dollars}.{decimals}"


def usd_text(amount_nano_usd: int) -> str:
    """``$0.10``, ``-$2.00``: the same for people."""
    return decimal_usd(amount_nano_usd, "$")


def next_period_starts(period: str) -> str:
    """The date on which the month after ``period`` (``YYYY-MM``) starts, as ``YYYY-MM-DD``."""
    year, month = int(period[:4]), int(period[5:])
    return f"{year + 1}-01-01" if month == 12 else f"{year}-{month + 1:02d}-01"


def refused(
    request: HoldRequest,
    standing: Standing,
    wallet: Wallet,
    period: str,
    money: int,
    narrowest: LimitMonth | None,
) -> InsufficientCredit:
    """The refusal of a hold: by a spending limit, or for lack of credit (``money`` is its room)."""
    if narrowest is None:
        fits = request.floor_nano_usd <= money + wallet.held
        text = _credit_text(request, standing, wallet, period, fits)
        return InsufficientCredit(
            text,
            payer_id=wallet.payer_id,
            held_nano_usd=wallet.held,
            fits_when_released=fits,
        )
    fits = request.floor_nano_usd <= narrowest.amount - narrowest.posted
    refusal = InsufficientCredit(
        _limit_text(request, narrowest, fits),
        payer_id=wallet.payer_id,
        held_nano_usd=narrowest.held,
        fits_when_released=fits,
    )
    refusal.code = "spending_limit_reached"
    return refusal


def _limit_text(request: HoldRequest, month: LimitMonth, fits: bool) -> str:
    limit = f"The monthly spending limit {_WHOSE[month.limit.scope]}, {usd_text(month.amount)},"
    starts = next_period_starts(month.period)
    if fits:
        return (
            f"{limit} has {usd_text(month.room())} left, {usd_text(month.held)} of it is set aside"
            " for calls in progress. Send the request again when those have ended."
        )
    left = max(month.amount - month.posted, 0)
    needed = usd_text(request.floor_nano_usd)
    return (
        f"{limit} is used up but for {usd_text(left)}; this call needs {needed}. Ask whoever set"
        f" the limit to raise it, or wait until {starts} (UTC), when the next month starts."
    )


def _credit_text(
    request: HoldRequest, standing: Standing, wallet: Wallet, period: str, fits: bool
) -> str:
    terms = standing.terms
    whose = "You have" if wallet.payer_id == request.user_id else f"{standing.payer_name} has"
    granted = sum(grant.granted - grant.expired for grant in wallet.grants)
    if granted == 0 and not terms.overage:
        return (
            f"The {terms.tier} tier includes no monthly credit. Ask the operator of this server for"
            " a tier that does, or for purchased credit, or use a free model."
        )
    way_out = (
        "Ask the operator of this server for a higher tier or for purchased credit, or wait until"
        f" {next_period_starts(period)} (UTC), when the next month's credit starts."
    )
    if terms.overage:
        limit = usd_text(terms.overage_limit_nano_usd or 0)
        return (
            f"{whose} used this month's credit and the {terms.tier} tier's limit of {limit} past"
            f" it. {way_out}"
        )
    monthly = usd_text(terms.monthly_credit_nano_usd)
    what = f"monthly included credit of {monthly}"
    if granted > terms.monthly_credit_nano_usd:
        what = f"credit of {usd_text(granted)} ({monthly} of it included monthly)"
    if wallet.credit <= 0:
        return f"{whose} used up the {what}. {way_out}"
    left, needed = usd_text(wallet.credit), usd_text(request.floor_nano_usd)
    holding = ""
    if wallet.held:
        holding = f", {usd_text(wallet.held)} of it set aside for calls in progress"
    if fits:
        return (
            f"{left} of the {what} is left{holding}; this call needs {needed}. Send it again when"
            " those calls have ended."
        )
    return (
        f"{left} of the {what} is left{holding}; this call needs {needed}. Send a shorter request,"
        f" or set a lower max_completion_tokens. {way_out}"
    )
