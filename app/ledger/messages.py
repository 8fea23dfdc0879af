"""What a payer without credit is told: exact amounts, and what to do next."""

from app.ledger.entries import HoldRequest

NANO_PER_USD = 10**9


def usd_text(amount_nano_usd: int) -> str:
    """``$0.10``, ``$0.000123``: exact, with at least two decimals."""
    sign = "-" if amount_nano_usd < 0 else ""
    dollars, nano = divmod(abs(amount_nano_usd), NANO_PER_USD)
    decimals = f"{nano:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${dollars}.{decimals}"


def next_period_starts(period: str) -> str:
    """The date on which the month after ``period`` (``YYYY-MM``) starts, as ``YYYY-MM-DD``."""
    year, month = int(period[:4]), int(period[5:])
    return f"{year + 1}-01-01" if month == 12 else f"{year}-{month + 1:02d}-01"


def insufficient_credit(
    request: HoldRequest, granted_nano_usd: int, posted_nano_usd: int, held_nano_usd: int
) -> str:
    """The text of a 402; all amounts are of the request's payer and month."""
    tier = request.terms.tier
    if granted_nano_usd == 0:
        return (
            f"The {tier} tier includes no monthly credit. Ask the operator of this server for a"
            " tier that does, or use a free model."
        )
    credit = usd_text(granted_nano_usd)
    way_out = (
        "Ask the operator of this server for a higher tier, or wait until"
        f" {next_period_starts(request.period)} (UTC), when the next month's credit starts."
    )
    left_nano_usd = granted_nano_usd - posted_nano_usd
    if left_nano_usd <= 0:
        return f"You have used your monthly included credit of {credit}. {way_out}"
    holding = ""
    if held_nano_usd:
        holding = f", {usd_text(held_nano_usd)} of it set aside for calls in progress"
    needed = usd_text(request.floor_nano_usd)
    if request.floor_nano_usd <= left_nano_usd:
        return (
            f"{usd_text(left_nano_usd)} of your monthly included credit of {credit} is left"
            f"{holding}; this call needs {needed}. Send it again when those calls have ended."
        )
    return (
        f"{usd_text(left_nano_usd)} of your monthly included credit of {credit} is left{holding};"
        f" this call needs {needed}. Send a shorter request, or set a lower max_completion_tokens."
        f" {way_out}"
    )
