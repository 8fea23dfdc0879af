"""Prices as listings give them, in nano-USD per million, exactly: rounded up where finer than that.

A price that is negative, absurd or no number makes the whole of it unknown: half a price would bill
the other half at nothing.
"""

from decimal import Context, Decimal, DecimalException
from typing import Any

from plugins.contract import Price
from plugins.openai_compatible.preset import PriceForm
from plugins.openai_compatible.wire import scaled

Item = dict[str, Any]
# USD per million tokens, of any kind; the dearest known is a thousandth of it.
_USD_MAX = 1_000_000
_TEXT_MAX = 64
_EXACT = Context(prec=2 * _TEXT_MAX)
# The power of ten that makes nano-USD per million tokens of one unit.
_EXPONENTS = {
    PriceForm.EACH: 15,
    PriceForm.PER_MILLION: 9,
    PriceForm.METADATA: 9,
    PriceForm.ROUTER: 9,
    PriceForm.NOVITA: 5,
    PriceForm.XAI: 5,
}
_NEEDED = ("input", "output")
_BUCKETS = ("input", "output", "cache_read", "cache_write", "reasoning", "audio_input")
# The names of the buckets, in their order; empty where a form has none.
_NAMES = {
    PriceForm.EACH: (
        *("prompt", "completion", "input_cache_read", "input_cache_write"),
        *("internal_reasoning", "audio"),
    ),
    PriceForm.PER_MILLION: ("input", "output", "cached_input", "", "", ""),
    PriceForm.METADATA: (
        *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "", ""),
    ),
    PriceForm.ROUTER: ("input", "output", "cache_read", "cache_write", "", ""),
    PriceForm.NOVITA: (
        *("input_token_price_per_m", "output_token_price_per_m"),
        *("cached_input_token_price_per_m", "", "", ""),
    ),
    PriceForm.XAI: (
        *("prompt_text_token_price", "completion_text_token_price"),
        *("cached_prompt_text_token_price", "", "", ""),
    ),
}


class _Absurd(Exception):
    """A price that cannot be true."""


def price_of(item: Item, form: PriceForm, *, complete: bool) -> Price:
    """The price in one item of a listing; ``Price()`` where it says none. ``complete``: a listed
    price of zero means that it is free."""
    if form is PriceForm.ROUTER and item.get("is_free") is True:
        return Price(free=True)
    exponent = _EXPONENTS[form]
    table = _table(item, form)
    try:
        found = {
            bucket: amount
            for bucket, name in zip(_BUCKETS, _NAMES[form], strict=True)
            if name and (amount := _amount(table.get(name), exponent)) is not None
        }
        # A call's own price is in USD whatever the unit of tokens.
        request = _amount(table.get("request"), 9) if form is PriceForm.EACH else None
    except _Absurd:
        return Price()
    if "input" not in found or "output" not in found:
        return Price()
    # Zero says "no price of its own" as often as it says "free"; charged as the bucket that it came
    # from, it is never billed below cost.
    found = {bucket: amount for bucket, amount in found.items() if amount or bucket in _NEEDED}
    if not found["input"] and not found["output"] and not request:
        return Price(free=complete)
    return Price(
        input=found["input"],
        output=found["output"],
        cache_read=found.get("cache_read"),
        cache_write=found.get("cache_write"),
        reasoning=found.get("reasoning"),
        audio_input=found.get("audio_input"),
        per_request=request or 0,
    )


def _table(item: Item, form: PriceForm) -> Item:
    if form in (PriceForm.NOVITA, PriceForm.XAI):
        return item
    holder = item.get("metadata") if form is PriceForm.METADATA else item
    found = holder.get("pricing") if isinstance(holder, dict) else None
    return found if isinstance(found, dict) else {}


def _amount(said: Any, exponent: int) -> int | None:
    """An amount in nano-USD; None where none is said. Raises _Absurd."""
    if said is None or said == "":
        return None
    if isinstance(said, str):
        try:
            said = Decimal(said) if len(said) <= _TEXT_MAX else None
        except DecimalException:
            said = None
    if isinstance(said, bool) or not isinstance(said, int | Decimal):
        raise _Absurd
    most = _EXACT.scaleb(Decimal(_USD_MAX), 9 - exponent)
    if isinstance(said, Decimal) and not said.is_finite():
        raise _Absurd
    if not 0 <= said <= most:
        raise _Absurd
    return scaled(Decimal(said), exponent)
