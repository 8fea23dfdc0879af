"""OpenAI's chat completion wire format, as read from providers that follow it more or less.

Reading is lenient where providers differ (absent index, null ``finish_reason``, unknown fields)
and strict where an error would be passed on as an answer. Usage is read apart from the answer, so
that a nonsensical one costs us the numbers and not the answer.
"""

import copy
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
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NULL = Raw(b"null")
NULL_BYTES = len(_NULL)


# ``gc=False``: these are trees of a reply's own parts, so no cycle can pass through them, and the
# collector need not visit hundreds of them per answer.
class _PromptDetails(msgspec.Struct):
    cached_tokens: _Tokens | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Tokens | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


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
    """Reported usage in buckets that do not overlap; None where it is absent or makes no sense."""
    try:
        usage = _usage_decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details else 0
    more = usage.completion_tokens_details
    reasoning = (more.reasoning_tokens or 0) if more else 0
    if cached > prompt or prompt + completion == 0:
        return None
    if reasoning > completion:
        reasoning = 0
    return Usage(
        input_tokens=prompt - cached,
        cache_read_tokens=cached,
        output_tokens=completion - reasoning,
        reasoning_tokens=reasoning,
    )


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
