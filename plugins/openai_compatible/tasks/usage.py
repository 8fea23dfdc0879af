"""Usage of tasks, as providers report it: OpenAI's shapes for embeddings, pictures and transcripts,
Mistral's ``prompt_audio_seconds``, OpenRouter's ``cost``.
"""

import math
from decimal import ROUND_CEILING, Context, Decimal
from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from plugins.contract import Usage
from plugins.http.failures import DECODE_ERRORS

# More than any call can have is a provider's mistake, and not to be charged.
_Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]
_SECONDS_MAX = 86_400
_COST_USD_MAX = 1_000
_NUMBER_BYTES_MAX = 64
_EXACT = Context(prec=2 * _NUMBER_BYTES_MAX)
_BYTES_PER_TOKEN = 4
NULL = Raw(b"null")


class _Details(msgspec.Struct):
    audio_tokens: _Tokens | None = None
    cached_tokens: _Tokens | None = None


class _Reported(msgspec.Struct):
    prompt_tokens: _Tokens | None = None
    input_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    total_tokens: _Tokens | None = None
    input_tokens_details: _Details | None = None
    input_token_details: _Details | None = None
    seconds: float | None = None
    prompt_audio_seconds: float | None = None
    cost: Raw = NULL


_decoder = msgspec.json.Decoder(_Reported | None)
_cost_decoder = msgspec.json.Decoder(Decimal | None)


def reported(raw: Raw) -> Usage | None:
    """The buckets that a usage object fills; None where there is none, or it makes no sense.

    Seconds count only where no tokens are reported: a provider bills by one of the two.
    """
    try:
        found = _decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    if found is None:
        return None
    given = found.input_tokens if found.prompt_tokens is None else found.prompt_tokens
    made = found.output_tokens if found.completion_tokens is None else found.completion_tokens
    read, wrote = given or 0, made or 0
    if not read and found.total_tokens:
        read = max(0, found.total_tokens - wrote)
    details = found.input_tokens_details or found.input_token_details or _Details()
    heard = min(details.audio_tokens or 0, read)
    cached = min(details.cached_tokens or 0, read - heard)
    seconds = found.seconds if found.prompt_audio_seconds is None else found.prompt_audio_seconds
    usage = Usage(
        input_tokens=read - heard - cached,
        cache_read_tokens=cached,
        audio_input_tokens=heard,
        output_tokens=wrote,
        audio_ms=0 if read + wrote else milliseconds(seconds),
        cost_nano_usd=cost_of(found.cost),
    )
    return usage if read + wrote + usage.audio_ms or usage.cost_nano_usd is not None else None


def milliseconds(seconds: float | None) -> int:
    """Reported seconds, rounded up; 0 where they cannot be true."""
    if seconds is None or not math.isfinite(seconds) or not 0 < seconds <= _SECONDS_MAX:
        return 0
    return math.ceil(round(seconds * 1000, 3))


def tokens_of(size_bytes: int) -> int:
    """An estimate for text: one token per four bytes of UTF-8, rounded up."""
    return (size_bytes + _BYTES_PER_TOKEN - 1) // _BYTES_PER_TOKEN


def cost_of(raw: Raw) -> int | None:
    """The provider's own bill in nano-USD, rounded up; None where it is none that can be true."""
    if len(raw) > _NUMBER_BYTES_MAX:
        return None
    try:
        # From the text of the number to a Decimal: no float comes between.
        usd = _cost_decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    if usd is None or not usd.is_finite() or not 0 <= usd <= _COST_USD_MAX:
        return None
    return int(_EXACT.scaleb(usd, 9).to_integral_value(ROUND_CEILING, _EXACT))
