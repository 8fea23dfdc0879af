"""Failures that are told in other places than OpenAI tells them."""

import re
import time
from collections.abc import Callable, Sequence
from decimal import Decimal, DecimalException
from typing import Any

import msgspec

from plugins.contract import AdapterError
from plugins.http import failures

# Codes in the body of an answer that came with status 200 (OpenRouter and routers like it). Others
# are the provider's own fault, whatever they say.
_TELLING = frozenset({401, 402, 403, 404, 408, 413, 429, 503, 504, 529})
_DURATION = re.compile(
    r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m(?!s))?(?:([0-9.]+)s)?(?:([0-9.]+)ms)?"
)
_UNITS_S = (Decimal(86_400), Decimal(3_600), Decimal(60), Decimal(1), Decimal("0.001"))
_LENGTH_MAX = 40
_EPOCH_MS = 10**12  # no wait is as long as this in seconds, and no date is as early in ms
_EPOCH_S = 10**9


def in_answer(words: Any, secret: str | None) -> AdapterError:
    """An error that came with status 200, in a body or in a stream."""
    said = failures.read_error(words)
    code = int(said.code) if said.code.isascii() and said.code.isdigit() else 0
    if code in _TELLING or said.code == "context_length_exceeded":
        body = msgspec.json.encode({"error": words})
        return failures.refusal(code or 400, lambda _: None, body, secret)
    return failures.error_in_answer(words, secret)


def wait_told(
    header: Callable[[str], str | None], resets: Sequence[tuple[str, str]]
) -> float | None:
    """How long a 429 says to wait in the headers of limits, where it has no ``Retry-After``: until
    the last of what is used up comes back, at most 60 s. None where that is not said.

    Read are seconds, durations as Go writes them ("6m0s", "120ms"), and moments in seconds or
    milliseconds since 1970 (OpenAI, Groq; OpenRouter).
    """
    waits = [
        wait
        for remaining, reset in resets
        if (header(remaining) or "").strip() in ("0", "0.0")
        and (wait := _seconds_of(header(reset) or "")) is not None
    ]
    return min(max(waits), failures.RETRY_AFTER_S_MAX) if waits else None


def _seconds_of(text: str) -> float | None:
    text = text.strip()
    if not text or len(text) > _LENGTH_MAX or not text.isascii():
        return None
    try:
        return max(0.0, _plain_seconds(Decimal(text)))
    except DecimalException:
        pass
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    try:
        parts = zip(found.groups(), _UNITS_S, strict=True)
        return float(sum(Decimal(number) * unit for number, unit in parts if number))
    except DecimalException:
        return None


def _plain_seconds(number: Decimal) -> float:
    if not number.is_finite():
        raise DecimalException
    if number >= _EPOCH_MS:
        return float(number) / 1000 - time.time()
    return float(number) - time.time() if number >= _EPOCH_S else float(number)
