"""Numbers that providers report, as exact integers. Nonsense costs the number, not the answer."""

from decimal import ROUND_CEILING, Context, Decimal

import msgspec
from msgspec import Raw

from plugins.http.failures import DECODE_ERRORS

NULL = Raw(b"null")
SECONDS_MAX = 86_400
"""No work of one call computes, speaks or plays for longer than a day."""
_COST_USD_MAX = 1_000
_NUMBER_BYTES_MAX = 64
_EXACT = Context(prec=2 * _NUMBER_BYTES_MAX)

_decoder = msgspec.json.Decoder(Decimal | None)


def scaled(number: Raw | bytes, exponent: int, most: int) -> int | None:
    """A JSON number times ten to the ``exponent``, rounded up; ``most`` bounds the number itself.

    None where it is absent, negative, too large to be true, or no number.
    """
    if len(number) > _NUMBER_BYTES_MAX:
        return None
    try:
        # From the text of the number to a Decimal: no float comes between.
        found = _decoder.decode(number)
    except DECODE_ERRORS:
        return None
    if found is None or not found.is_finite() or not 0 <= found <= most:
        return None
    return int(_EXACT.scaleb(found, exponent).to_integral_value(ROUND_CEILING, _EXACT))


def ns_of_seconds(number: Raw | bytes) -> int:
    """Seconds as nanoseconds; 0 where they are not known."""
    return scaled(number, 9, SECONDS_MAX) or 0


def ns_of_ms(number: Raw | bytes) -> int:
    """Milliseconds as nanoseconds; 0 where they are not known."""
    return scaled(number, 6, SECONDS_MAX * 1000) or 0


def ms_of_seconds(number: Raw | bytes) -> int:
    """Seconds as milliseconds; 0 where they are not known."""
    return scaled(number, 3, SECONDS_MAX) or 0


def nano_usd_of_cents(number: Raw | bytes) -> int | None:
    """US cents as nano-USD; None where they are not known."""
    return scaled(number, 7, _COST_USD_MAX * 100)
