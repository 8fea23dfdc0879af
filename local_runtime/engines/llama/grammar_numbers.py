"""Bounded JSON numbers as GBNF: which decimal digits may follow which."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

_DIGITS_MAX = 15  # what a double holds exactly
_LARGEST = 10**_DIGITS_MAX - 1
_PLACES_MAX = 6  # digits after the point
_PLACES = 2  # where a bound has fewer itself
_MULTIPLE_MAX = 10_000


Bound = tuple[Decimal, bool]  # the value, and whether it is itself excluded
Name = Callable[[str], str]  # gives a rule body a name


def number_rule(own: dict[str, Any], *, whole: bool, name: Name | None = None) -> str | None:
    """A rule body for ``minimum``, ``multipleOf`` and so on; None where none can be guaranteed.

    Numbers have at most 15 digits. Those with a fraction have few places, so the grammar may be
    narrower than the schema and never wider. ``name`` is needed for ``multipleOf`` only.
    """
    if not all(_is_number(value) for value in own.values()):
        return None
    lower = _tightest(own.get("minimum"), own.get("exclusiveMinimum"), max)
    upper = _tightest(own.get("maximum"), own.get("exclusiveMaximum"), min)
    digits = _Digits(whole=whole)
    if "multipleOf" in own:
        step = Decimal(str(own["multipleOf"]))
        if step <= 0 or step > _MULTIPLE_MAX or name is None:
            return None
        digits = _Digits(whole=whole or step == int(step), step=step, name=name)
    parts = []
    if lower is None or lower[0] < 0:
        # Negative numbers: the same thing for their magnitudes, with the bounds exchanged.
        zero = (Decimal(0), True)
        least = zero if upper is None or upper[0] >= 0 else (-upper[0], upper[1])
        most = None if lower is None else (-lower[0], lower[1])
        parts += [f'"-" ({body})' for body in digits.between(least, most)]
    if upper is None or upper[0] >= 0:
        least = (Decimal(0), False) if lower is None or lower[0] < 0 else lower
        parts += digits.between(least, upper)
    return " | ".join(parts) or None


def _tightest(plain: Any, exclusive: Any, pick: Any) -> Bound | None:
    bounds = [Decimal(str(bound)) for bound in (plain, exclusive) if bound is not None]
    if not bounds:
        return None
    value = pick(bounds)
    return value, exclusive is not None and value == Decimal(str(exclusive))


class _Digits:
    """Texts of numbers that are not negative."""

    def __init__(
        self, *, whole: bool, step: Decimal | None = None, name: Name | None = None
    ) -> None:
        self._whole = whole
        self._step = step
        self._name = name
        self._endings: dict[tuple[int, int], str | None] = {}

    def between(self, least: Bound, most: Bound | None) -> list[str]:
        """Alternatives for the numbers from ``least`` to ``most``."""
        high = most if most is not None else (Decimal(_LARGEST), False)
        if self._whole:
            return self._fixed(least, high, 0)
        if self._step is not None:
            return self._steps(least, high)
        places = max(_places(least[0]), _places(high[0]))
        if places:
            return self._fixed(least, high, min(_PLACES_MAX, max(_PLACES, places)))
        found = self._fixed(least, high, 0)
        # With a fraction: every integer whose successor is still within the upper bound.
        first, last = int(least[0]), int(high[0]) - 1
        if least[1] and first <= last:
            # The bound itself is out, so what follows the point must not be all zeros.
            found.append(f'"{first}" "." [0-9]{{0,{_PLACES_MAX - 1}}} [1-9]')
            first += 1
        if first <= last:
            found.append(f'({self._range(first, last, 0)}) "." [0-9]{{1,{_PLACES_MAX}}}')
        return found

    def _steps(self, least: Bound, high: Bound) -> list[str]:
        """Multiples of a step that is no integer."""
        assert self._step is not None
        places = _places(self._step)
        if places > _PLACES_MAX:
            return []
        scaled = _Digits(whole=True, step=self._step.scaleb(places), name=self._name)
        return scaled._fixed(least, high, places)

    def _fixed(self, least: Bound, high: Bound, places: int) -> list[str]:
        """With exactly so many places."""
        first = math.ceil(least[0].scaleb(places))
        last = min(math.floor(high[0].scaleb(places)), _LARGEST)
        first += least[1] and first == least[0].scaleb(places)
        last -= high[1] and last == high[0].scaleb(places)
        body = self._range(first, last, places) if first <= last else None
        return [body] if body else []

    def _range(self, first: int, last: int, places: int) -> str | None:
        """The integers from ``first`` to ``last``, without needless zeros before the point."""
        parts = []
        while first <= last:
            size = max(len(str(first)), places + 1)
            end = min(last, 10**size - 1)
            part = self._same_size(str(first).zfill(size), str(end).zfill(size), 0, places)
            if part is not None:
                parts.append(part)
            first = end + 1
        return " | ".join(parts) or None

    def _same_size(self, first: str, last: str, begun: int, places: int) -> str | None:
        """Decimal strings of one size; ``begun`` is the number that the digits before them make."""
        size = len(first)
        point = '"." ' if places and size == places else ""
        if set(first) <= {"0"} and set(last) <= {"9"}:
            return self._free(begun, size, places)
        parts: dict[str, list[int]] = {}
        for digit in range(int(first[0]), int(last[0]) + 1):
            low = first[1:] if digit == int(first[0]) else "0" * (size - 1)
            high = last[1:] if digit == int(last[0]) else "9" * (size - 1)
            rest = self._same_size(low, high, begun * 10 + digit, places)
            if rest is not None:
                parts.setdefault(rest, []).append(digit)
        if not parts:
            return None
        return point + _grouped(parts)

    def _free(self, begun: int, size: int, places: int) -> str | None:
        """Any ``size`` digits that make a number that counts."""
        if self._step is None or self._name is None:
            before = size - places if size > places else 0
            after = size - before
            point = '"." ' if places and after == places else ""
            text = f"[0-9]{{{before}}} " if before else ""
            return (text + point + (f"[0-9]{{{after}}}" if after else "")).strip() or '""'
        modulus = int(self._step)
        key = (begun * 10**size % modulus, size)
        if key not in self._endings:
            self._endings[key] = None
            if size == 0:
                self._endings[key] = '""' if key[0] == 0 else None
            else:
                parts: dict[str, list[int]] = {}
                for digit in range(10):
                    rest = self._free(begun * 10 + digit, size - 1, places)
                    if rest is not None:
                        parts.setdefault(rest, []).append(digit)
                point = '"." ' if places and size == places else ""
                if parts:
                    self._endings[key] = self._name(point + _grouped(parts))
        return self._endings[key]


def _grouped(parts: dict[str, list[int]]) -> str:
    texts = []
    for rest, digits in parts.items():
        spans = "".join(map(str, digits))
        if len(digits) > 2 and digits[-1] - digits[0] == len(digits) - 1:
            spans = f"{digits[0]}-{digits[-1]}"
        texts.append(f"[{spans}]" + ("" if rest == '""' else f" {rest}"))
    return texts[0] if len(texts) == 1 else f"({' | '.join(texts)})"


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and abs(value) <= _LARGEST
