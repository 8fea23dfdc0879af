"""Bounded JSON numbers as GBNF: which decimal digits may follow which."""

import math
from typing import Any

_DIGITS_MAX = 15  # what a double holds exactly
_LARGEST = 10**_DIGITS_MAX - 1


def number_rule(own: dict[str, Any], *, whole: bool) -> str | None:
    """A rule body for the bounds given (``minimum`` and so on); None where none can be guaranteed.

    Numbers with a fraction are produced from the integers between the bounds, so the grammar may be
    narrower than the schema at a bound that is no integer, and never wider.
    """
    if not all(_is_number(value) for value in own.values()):
        return None
    lower = _tightest(own.get("minimum"), own.get("exclusiveMinimum"), max)
    upper = _tightest(own.get("maximum"), own.get("exclusiveMaximum"), min)
    parts = []
    if lower is None or lower[0] < 0:
        # Negative numbers: the same thing for their magnitudes, with the bounds exchanged.
        least = (0, True) if upper is None or upper[0] >= 0 else (-upper[0], upper[1])
        most = None if lower is None else (-lower[0], lower[1])
        parts += [f'"-" ({body})' for body in _magnitudes(least, most, whole=whole)]
    if upper is None or upper[0] >= 0:
        least = (0, False) if lower is None or lower[0] < 0 else lower
        parts += _magnitudes(least, upper, whole=whole)
    return " | ".join(parts) or None


Bound = tuple[float, bool]  # the value, and whether it is itself excluded


def _tightest(plain: Any, exclusive: Any, pick: Any) -> Bound | None:
    bounds = [bound for bound in (plain, exclusive) if bound is not None]
    if not bounds:
        return None
    value = pick(bounds)
    return value, value == exclusive


def _magnitudes(least: Bound, most: Bound | None, *, whole: bool) -> list[str]:
    """Alternatives for the numbers from ``least`` (not negative) to ``most``."""
    low, low_open = least
    high, high_open = most if most is not None else (_LARGEST, False)
    first = math.floor(low) + 1 if low_open else math.ceil(low)
    last = min(math.ceil(high) - 1 if high_open else math.floor(high), _LARGEST)
    bodies = [_range(first, last)] if first <= last else []
    if whole:
        return bodies
    # With a fraction: every integer whose successor is still within the upper bound.
    below = min(math.floor(high), _LARGEST) - 1
    above = math.ceil(low)
    if low_open and low == above and above <= below:
        # The bound itself is out, so what follows the point must not be all zeros.
        bodies.append(f'"{above}" "." [0-9]{{0,5}} [1-9]')
        above += 1
    if above <= below:
        bodies.append(f'({_range(above, below)}) "." [0-9]{{1,6}}')
    return bodies


def _range(first: int, last: int) -> str:
    """The integers from ``first`` (at least 0) to ``last``, without leading zeros."""
    parts = []
    while first <= last:
        end = min(last, 10 ** len(str(first)) - 1)
        parts.append(_same_length(str(first), str(end)))
        first = end + 1
    return " | ".join(parts)


def _same_length(first: str, last: str) -> str:
    """Decimal strings of one length, from ``first`` to ``last``."""
    if not first:
        return '""'
    rest = len(first) - 1
    if first[0] == last[0]:
        return f'"{first[0]}" ' + (_same_length(first[1:], last[1:]) if rest else "")
    if set(first[1:]) <= {"0"} and set(last[1:]) <= {"9"}:
        return _digits(first[0], last[0], rest)
    parts = [f'"{first[0]}" ({_same_length(first[1:], "9" * rest)})']
    if ord(last[0]) - ord(first[0]) > 1:
        parts.append(_digits(chr(ord(first[0]) + 1), chr(ord(last[0]) - 1), rest))
    parts.append(f'"{last[0]}" ({_same_length("0" * rest, last[1:])})')
    return "(" + " | ".join(parts) + ")"


def _digits(first: str, last: str, rest: int) -> str:
    return f"[{first}-{last}]" + (f" [0-9]{{{rest}}}" if rest else "")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and abs(value) <= _LARGEST
