"""OpenAI's chat completion wire format, as read from providers that follow it more or less.

Reading is lenient where providers differ (absent index, null ``finish_reason``, unknown fields)
and strict where an error would be passed on as an answer. Usage is read apart from the answer, so
that a nonsensical one costs us the numbers and not the answer.
"""

import re
from decimal import ROUND_CEILING, Context, Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from plugins.chat import (
    AssistantMessage,
    ChatRequest,
    Choice,
    ChoiceDelta,
    Delta,
    Object,
)
from plugins.contract import Usage
from plugins.http.failures import DECODE_ERRORS
from plugins.openai_compatible import mending

# No answer of one call has more; a larger number is a provider's mistake, and not to be charged.
_Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]
# Nor does one answer cost more than a thousand dollars, or take more than a day of computing.
_COST_USD_MAX = 1_000
_COMPUTE_SECONDS_MAX = 86_400
_SECONDS_TEXT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,20})?")
_NUMBER_BYTES_MAX = 64
_EXACT = Context(prec=2 * _NUMBER_BYTES_MAX)
_NULL = Raw(b"null")
NULL_BYTES = len(_NULL)


# ``gc=False``: these are trees of a reply's own parts, so no cycle can pass through them, and the
# collector need not visit hundreds of them per answer.
class _PromptDetails(msgspec.Struct):
    cached_tokens: _Tokens | None = None
    cache_write_tokens: _Tokens | None = None
    audio_tokens: _Tokens | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Tokens | None = None
    audio_tokens: _Tokens | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    total_tokens: Raw = _NULL
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    # Outside of the details: Together, Mistral, DeepSeek; Together.
    cached_tokens: _Tokens | None = None
    num_cached_tokens: _Tokens | None = None
    prompt_cache_hit_tokens: _Tokens | None = None
    reasoning_tokens: _Tokens | None = None
    # The bill: OpenRouter and Turnpike; DeepInfra, both in USD; xAI, in 10^-10 USD.
    cost: Raw = _NULL
    estimated_cost: Raw = _NULL
    cost_in_usd_ticks: Raw = _NULL


class WireMessage(AssistantMessage, omit_defaults=False, kw_only=True):
    """An answer's message; some providers leave out ``content`` where tools are called."""

    role: str = "assistant"
    content: str | None = None


class WireChoice(msgspec.Struct, gc=False):
    """One choice of a whole answer."""

    message: WireMessage
    index: int = 0
    logprobs: Object | None = None
    finish_reason: str | None = None


class WireReply(msgspec.Struct, gc=False):
    """A whole answer, or an error that came with status 200."""

    id: str | None = None
    object: str | None = None
    choices: list[WireChoice] | None = None
    usage: Raw = _NULL
    error: Any = None
    message: Any = None  # the error's text where ``object`` is ``error``


class WireDelta(ChoiceDelta, kw_only=True, gc=False):
    """A choice of a chunk; the defaults are for providers that leave the fields out."""

    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)


class _Groq(msgspec.Struct, gc=False):
    usage: Raw = _NULL


class WireChunk(msgspec.Struct, gc=False):
    """One event of a stream, or an error in it."""

    id: str | None = None
    object: str | None = None
    choices: list[WireDelta] | None = None
    usage: Raw = _NULL
    x_groq: _Groq | None = None
    error: Any = None
    message: Any = None  # the error's text where ``object`` is ``error``


reply_decoder = msgspec.json.Decoder(WireReply)
chunk_decoder = msgspec.json.Decoder(WireChunk)
chunks_decoder = msgspec.json.Decoder(list[WireChunk])
_usage_decoder: msgspec.json.Decoder[_Usage | None] = msgspec.json.Decoder(_Usage | None)
_lax_usage_decoder: msgspec.json.Decoder[_Usage | None] = msgspec.json.Decoder(
    _Usage | None, strict=False
)
_cost_decoder = msgspec.json.Decoder(Decimal | None)
_encoder = msgspec.json.Encoder()


def choices_of(reply: WireReply) -> list[Choice]:
    """The answer's choices, made canonical; a ``finish_reason`` that the provider left out follows
    from what is in the message. Raises AdapterError for an answer that was broken off.
    """
    choices = []
    for choice in reply.choices or ():
        message = choice.message
        mending.mend_message(message)
        said = choice.finish_reason
        if not said:
            said = "tool_calls" if message.tool_calls else "stop"
        choices.append(
            Choice(
                index=choice.index,
                message=message,
                logprobs=choice.logprobs,
                finish_reason=mending.reason_of(said),
            )
        )
    return choices


def usage_of(raw: Raw, *, reasoning_apart: bool = False) -> Usage | None:
    """Reported usage in buckets that do not overlap; None where it is absent or makes no sense.

    Details are parts of the whole that they stand under, and of what details before them left of
    it: one that claims more gets what is left, so that nothing is negative or counted twice.
    With ``reasoning_apart``, reasoning tokens that cannot be part of ``completion_tokens``, or by
    the total are not, come on top of them (xAI; DeepInfra for Gemini).
    """
    usage = _decode_usage(raw)
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt + completion == 0:
        return None
    read = usage.cached_tokens or usage.num_cached_tokens or usage.prompt_cache_hit_tokens or 0
    thought = usage.reasoning_tokens or 0
    written = heard = spoken = 0
    if (details := usage.prompt_tokens_details) is not None:
        read = details.cached_tokens or read
        written = details.cache_write_tokens or 0
        heard = details.audio_tokens or 0
    if (more := usage.completion_tokens_details) is not None:
        thought = more.reasoning_tokens or thought
        spoken = more.audio_tokens or 0
    if reasoning_apart and thought and _is_apart(usage, prompt, completion, thought):
        completion += thought
    read = min(read, prompt)
    written = min(written, prompt - read)
    heard = min(heard, prompt - read - written)
    reasoning = min(thought, completion)
    spoken = min(spoken, completion - reasoning)
    return Usage(
        input_tokens=prompt - read - written - heard,
        cache_read_tokens=read,
        cache_write_tokens=written,
        audio_input_tokens=heard,
        output_tokens=completion - reasoning - spoken,
        reasoning_tokens=reasoning,
        audio_output_tokens=spoken,
        cost_nano_usd=_bill_of(usage),
    )


def _decode_usage(raw: Raw) -> _Usage | None:
    """Usage as it stands; numbers as text are read too. None where it cannot be read."""
    try:
        return _usage_decoder.decode(raw)
    except DECODE_ERRORS:
        pass
    try:
        return _lax_usage_decoder.decode(raw)
    except DECODE_ERRORS:
        return None


def _is_apart(usage: _Usage, prompt: int, completion: int, thought: int) -> bool:
    """Whether reasoning is not among the completion's tokens."""
    return thought > completion or bytes(usage.total_tokens) == b"%d" % (
        prompt + completion + thought
    )


def _bill_of(usage: _Usage) -> int | None:
    """What the provider says that the call costs, in nano-USD; None where it says nothing."""
    for raw in (usage.cost, usage.estimated_cost):
        if raw is not _NULL and (cost := _cost_of(raw, 9)) is not None:
            return cost
    return None if usage.cost_in_usd_ticks is _NULL else _cost_of(usage.cost_in_usd_ticks, -1)


def with_compute(usage: Usage, told: str | None, wall_ns: int) -> Usage:
    """The usage with its compute time: what the provider's ``x-compute-time`` header says, in
    seconds, rounded up to a nanosecond.

    Where it says nothing, or nonsense, it is ``wall_ns``, the time from the request to the end of
    the answer, which is the longest that the hardware can have worked on it; and estimated.
    """
    seconds = None if told is None else _decimal(told)
    if seconds is None or not 0 <= seconds <= _COMPUTE_SECONDS_MAX:
        return msgspec.structs.replace(usage, compute_ns=wall_ns, estimated=True)
    return msgspec.structs.replace(usage, compute_ns=scaled(seconds, 9))


def compute_seconds(told: str | None, total_ms: str | None) -> str | None:
    """The time on the hardware in seconds, as a decimal number; None where it is none.

    The servers behind it differ: huggingface/api-inference-community and
    text-generation-inference tell seconds, text-embeddings-inference milliseconds. The last two
    tell the same once more as ``x-total-time``, in milliseconds always.
    """
    if not _SECONDS_TEXT.fullmatch(told or ""):
        return None
    found = Decimal(told or "")
    if _SECONDS_TEXT.fullmatch(total_ms or "") and abs(found - Decimal(total_ms or "")) <= 1:
        found = found.scaleb(-3)
    return f"{found:f}"


def _cost_of(raw: Raw, exponent: int) -> int | None:
    """The provider's own bill in nano-USD, rounded up; None where it is none that can be true.

    ``exponent`` says what a nano-USD is in the bill's unit: 9 for USD.
    """
    if len(raw) > _NUMBER_BYTES_MAX:
        return None
    try:
        # From the text of the number to a Decimal: no float comes between.
        told = _cost_decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    most = _COST_USD_MAX * 10 ** (9 - exponent)
    if told is None or not told.is_finite() or not 0 <= told <= most:
        return None
    return scaled(told, exponent)


def _decimal(text: str) -> Decimal | None:
    try:
        found = Decimal(text) if len(text) <= _NUMBER_BYTES_MAX else None
    except ArithmeticError:
        return None
    return found if found is not None and found.is_finite() else None


def scaled(amount: Decimal, exponent: int) -> int:
    """A bounded amount of at most 64 digits times a power of ten, rounded up."""
    return int(_EXACT.scaleb(amount, exponent).to_integral_value(ROUND_CEILING, _EXACT))


class Delivered:
    """Counts an answer's bytes as they pass, for an estimate where no usage is reported.

    The estimate is one token per four bytes of UTF-8, rounded up: text and tool arguments as
    output, reasoning as reasoning, the text of the messages and the tools as input. Images and
    audio in the request are not counted.
    """

    __slots__ = ("output_bytes", "reasoning_bytes")

    def __init__(self) -> None:
        self.output_bytes = 0
        self.reasoning_bytes = 0

    def add(self, part: Delta | AssistantMessage) -> None:
        """Count one delta, or one whole message."""
        content = part.content
        if content:
            # ``isascii`` reads a flag of the string, so the common case encodes nothing.
            self.output_bytes += len(content) if content.isascii() else len(content.encode())
        thought = part.reasoning_content or part.reasoning
        if thought:
            self.reasoning_bytes += len(thought.encode())
        if part.tool_calls:
            self.output_bytes += len(_encoder.encode(part.tool_calls))

    def estimate(self, request: ChatRequest) -> Usage:
        """Usage of what has passed so far."""
        return Usage(
            input_tokens=max(1, _tokens(_prompt_bytes(request))),
            output_tokens=_tokens(self.output_bytes),
            reasoning_tokens=_tokens(self.reasoning_bytes),
            estimated=True,
        )


def _tokens(size_bytes: int) -> int:
    return (size_bytes + 3) // 4


def _prompt_bytes(request: ChatRequest) -> int:
    size = sum(message.text_bytes() for message in request.messages)
    return size + (len(_encoder.encode(request.tools)) if request.tools else 0)
