"""Amounts of money as people write them: decimal USD with up to nine places, exactly."""

import re
from decimal import Decimal

from app.errors import InvalidRequest
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from app.ledger.messages import decimal_usd

__all__ = ["decimal_usd", "nano_of"]

_SIGNED = re.compile(r"[+-]?[0-9]{1,9}(\.[0-9]{1,9})?")


def nano_of(text: str, param: str, *, signed: bool = False) -> int:
    """Exact nano-USD of what a person wrote; zero is no amount. Raises InvalidRequest."""
    if not _SIGNED.fullmatch(text) or (text[0] in "+-" and not signed):
        form = '"25.00", or "-25.00" to take it' if signed else '"25.00"'
        raise InvalidRequest(
            f"{param!r} is an amount in USD with at most nine places, such as {form}"
            f" (found {text[:64]!a}).",
            param=param,
        )
    amount = int(Decimal(text).scaleb(9).to_integral_exact())
    if amount == 0:
        raise InvalidRequest(f"{param!r} is zero: there is nothing to book.", param=param)
    if abs(amount) > AMOUNT_NANO_USD_MAX:
        raise InvalidRequest(
            f"{param!r} is more than {decimal_usd(AMOUNT_NANO_USD_MAX)} USD: book it in parts.",
            param=param,
        )
    return amount
