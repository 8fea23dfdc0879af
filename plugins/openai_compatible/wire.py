"""OpenAI's chat completion wire format, as read from providers that follow it more or less.

Reading is lenient where providers differ (absent index, null ``finish_reason``, unknown fields)
and strict where an error would be passed on as an answer. Usage is read apart from the answer, so
that a nonsensical one costs us the numbers and not the answer.
"""

import copy
from decimal import ROUND_CEILING, Context, Decimal
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw

from plugins.chat import (
    AssistantMessage,
    ChatRequest,
    Choice,
    ChoiceDelta,
    Delta,
    Object,
    StreamOptions,
)
from plugins.contract import InferenceCall, Usage

# No answer of one call has more; a larger number is a provider's mistake, and not to be charged.
_Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]
# Nor does one answer cost more than a thousand dollars, or take more than a day of computing.
_COST_USD_MAX = 1_000
_COMPUTE_SECONDS_MAX = 86_400
_NUMBER_BYTES_MAX = 64
_EXACT = Context(prec=2 * _NUMBER_BYTES_MAX)
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
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
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    cost: Raw = _NULL


class _WireMessage(AssistantMessage, omit_defaults=False, kw_only=True):
    """An answer's message; some providers leave out ``content`` where tools are called."""

    role: str = "assistant"
    content: str | None = None


class _WireChoice(msgspec.Struct, gc=False):
    message: _WireMessage
    index: int = 0
    logprobs: Object | None = None
    finish_reason: str | None = None


class WireReply(msgspec.Struct, gc=False):
    """A whole answer, or an error that came with status 200."""

    id: str | None = None
    object: str | None = None
    choices: list[_WireChoice] | None = None
    usage: Raw = _NULL
    error: Any = None
    message: Any = None  # the error's text where ``object`` is ``error``


class _WireDelta(ChoiceDelta, kw_only=True, gc=False):
    """A choice of a chunk; the defaults are for providers that leave the fields out."""

    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)


class WireChunk(msgspec.Struct, gc=False):
    """One event of a stream, or an error in it."""

    id: str | None = None
    object: str | None = None
    choices: list[_WireDelta] | None = None
    usage: Raw = _NULL
    error: Any = None
    message: Any = None  # the error's text where ``object`` is ``error``


reply_decoder = msgspec.json.Decoder(WireReply)
chunk_decoder = msgspec.json.Decoder(WireChunk)
chunks_decoder = msgspec.json.Decoder(list[WireChunk])
_usage_decoder = msgspec.json.Decoder(_Usage | None)
_cost_decoder = msgspec.json.Decoder(Decimal | None)
_encoder = msgspec.json.Encoder()
_WITH_USAGE = StreamOptions(include_usage=True)


def encode_request(call: InferenceCall) -> bytes:
    """The client's request as sent upstream: our model name for theirs, usage always asked for."""
    request: ChatRequest = copy.copy(call.request)
    request.model = call.upstream_id
    request.stream = call.stream
    if not call.stream:
        request.stream_options = UNSET
    elif isinstance(request.stream_options, StreamOptions):
        request.stream_options = msgspec.structs.replace(request.stream_options, include_usage=True)
    else:
        request.stream_options = _WITH_USAGE
    return _encoder.encode(request)


def choices_of(reply: WireReply) -> list[Choice]:
    """The answer's choices; a ``finish_reason`` that the provider left out is ``stop``."""
    return [
        Choice(
            index=choice.index,
            message=choice.message,
            logprobs=choice.logprobs,
            finish_reason=choice.finish_reason or "stop",
        )
        for choice in reply.choices or ()
    ]


def usage_of(raw: Raw) -> Usage | None:
    """Reported usage in buckets that do not overlap; None where it is absent or makes no sense.

    Details are parts of the whole that they stand under, and of what details before them left of
    it: one that claims more gets what is left, so that nothing is negative or counted twice.
    """
    try:
        usage = _usage_decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt + completion == 0:
        return None
    cost = None if usage.cost is _NULL else _cost_of(usage.cost)
    read = written = heard = reasoning = spoken = 0
    if (details := usage.prompt_tokens_details) is not None:
        read = min(details.cached_tokens or 0, prompt)
        written = min(details.cache_write_tokens or 0, prompt - read)
        heard = min(details.audio_tokens or 0, prompt - read - written)
    if (more := usage.completion_tokens_details) is not None:
        reasoning = min(more.reasoning_tokens or 0, completion)
        spoken = min(more.audio_tokens or 0, completion - reasoning)
    return Usage(
        input_tokens=prompt - read - written - heard,
        cache_read_tokens=read,
        cache_write_tokens=written,
        audio_input_tokens=heard,
        output_tokens=completion - reasoning - spoken,
        reasoning_tokens=reasoning,
        audio_output_tokens=spoken,
        cost_nano_usd=cost,
    )


def with_compute(usage: Usage, told: str | None, wall_ns: int) -> Usage:
    """The usage with its compute time: what the provider's ``x-compute-time`` header says, in
    seconds, rounded up to a nanosecond.

    Where it says nothing, or nonsense, it is ``wall_ns``, the time from the request to the end of
    the answer, which is the longest that the hardware can have worked on it; and estimated.
    """
    seconds = None if told is None else _decimal(told)
    if seconds is None or not 0 <= seconds <= _COMPUTE_SECONDS_MAX:
        return msgspec.structs.replace(usage, compute_ns=wall_ns, estimated=True)
    return msgspec.structs.replace(usage, compute_ns=_billionths(seconds))


def _cost_of(raw: Raw) -> int | None:
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
    return _billionths(usd)


def _decimal(text: str) -> Decimal | None:
    try:
        found = Decimal(text) if len(text) <= _NUMBER_BYTES_MAX else None
    except ArithmeticError:
        return None
    return found if found is not None and found.is_finite() else None


def _billionths(amount: Decimal) -> int:
    """A small amount of at most 64 digits in billionths, rounded up."""
    return int(_EXACT.scaleb(amount, 9).to_integral_value(ROUND_CEILING, _EXACT))


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
