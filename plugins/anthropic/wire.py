"""What Anthropic's Messages API answers: a whole message, or the events of a stream.

Source: anthropics/anthropic-sdk-python, ``types/message.py`` and ``types/raw_*_event.py``. New
kinds of blocks and events may come at any time and are passed over; usage is read apart from the
answer, so that a nonsensical one costs us the numbers and not the answer.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw

from plugins.anthropic.conversation import THOUGHT_FORMAT
from plugins.chat import AssistantMessage, Choice, Object
from plugins.contract import Usage
from plugins.http.failures import DECODE_ERRORS, clean

# No answer of one call has more; a larger number is a provider's mistake, and not to be charged.
_Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]
ID_LENGTH_MAX = 256
NULL = Raw(b"null")
DECLINED = "The model declined to answer."
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
EVENTS = frozenset(
    {
        *("message_start", "message_delta", "message_stop", "error"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)


class _OutputDetails(msgspec.Struct):
    thinking_tokens: _Tokens | None = None


class WireUsage(msgspec.Struct):
    """Counts that do not overlap, but for the thinking in ``output_tokens``."""

    input_tokens: _Tokens | None = None
    cache_creation_input_tokens: _Tokens | None = None
    cache_read_input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    output_tokens_details: _OutputDetails | None = None


class WireBlock(msgspec.Struct, gc=False):
    """One block of an answer, of any kind."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class _StopDetails(msgspec.Struct, gc=False):
    explanation: str | None = None


class WireMessage(msgspec.Struct, gc=False):
    """A whole answer; an error that came with status 200; or the start of a stream."""

    type: str = ""
    id: str | None = None
    content: list[WireBlock] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: Raw = NULL
    error: Any = None


class _Delta(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class WireEvent(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str
    index: int = 0
    message: WireMessage | None = None
    content_block: WireBlock | None = None
    delta: _Delta | None = None
    usage: Raw = NULL
    error: Any = None


class _Kind(msgspec.Struct, gc=False):
    type: str


message_decoder = msgspec.json.Decoder(WireMessage)
_event_decoder = msgspec.json.Decoder(WireEvent)
_kind_decoder = msgspec.json.Decoder(_Kind)
_usage_decoder = msgspec.json.Decoder(WireUsage | None)
_encoder = msgspec.json.Encoder()


def event_of(data: bytes) -> WireEvent | None:
    """One event, None for those that say nothing to us. Raises what msgspec raises."""
    try:
        event = _event_decoder.decode(data)
    except msgspec.ValidationError:
        # An event that is newer than this file may use our names for other things.
        if _kind_decoder.decode(data).type in EVENTS:
            raise
        return None
    return event if event.type in EVENTS else None


def usage_of(raw: Raw) -> WireUsage | None:
    """The counts, None where they are absent or make no sense."""
    try:
        found: WireUsage | None = _usage_decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    return found


def merged(before: WireUsage | None, after: WireUsage | None) -> WireUsage | None:
    """Counts of a stream so far: those that come later are of the whole, not added."""
    if before is None or after is None:
        return after or before
    names = WireUsage.__struct_fields__
    values = {name: getattr(after, name) for name in names if getattr(after, name) is not None}
    return msgspec.structs.replace(before, **values)


def buckets_of(usage: WireUsage | None) -> Usage | None:
    """The counts in buckets that do not overlap; None where input or output is missing."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    read, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    if usage.input_tokens + read + written + usage.output_tokens == 0:
        return None
    details = usage.output_tokens_details
    thought = min((details and details.thinking_tokens) or 0, usage.output_tokens)
    return Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=usage.output_tokens - thought,
        reasoning_tokens=thought,
    )


def finish_of(stop_reason: str | None) -> str:
    """OpenAI's word for why the answer ended."""
    return _FINISH.get(stop_reason or "", "stop")


def refusal_of(stop_reason: str | None, details: _StopDetails | None) -> str | None:
    """Why the model refused, where it did."""
    if stop_reason != "refusal":
        return None
    said = clean(details.explanation, None) if details and details.explanation else ""
    return said or DECLINED


def thought_detail(number: int, text: str, signature: str) -> Object:
    """A signed thought as an entry of ``reasoning_details``, to be sent back as it is."""
    return {
        "type": "reasoning.text",
        "text": text,
        "signature": signature,
        "format": THOUGHT_FORMAT,
        "index": number,
    }


def sealed_detail(number: int, data: str) -> Object:
    """An encrypted thought likewise."""
    return {
        "type": "reasoning.encrypted",
        "data": data,
        "format": THOUGHT_FORMAT,
        "index": number,
    }


def tool_call(given: str | None, name: str | None, arguments: str, number: int) -> Object:
    """A whole tool call; ids and names are bounded, and an id that is missing is made."""
    return {
        "id": (given or f"call_{number}")[:ID_LENGTH_MAX],
        "type": "function",
        "function": {"name": (name or "")[:ID_LENGTH_MAX], "arguments": arguments},
    }


def arguments_of(given: Any) -> str:
    """A tool's input as JSON text."""
    return _encoder.encode(given if isinstance(given, dict) else {}).decode()


def choice_of(message: WireMessage, *, hide_thoughts: bool) -> Choice:
    """A whole answer in the canonical form."""
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[Object] = []
    calls: list[Object] = []
    for block in message.content or ():
        if block.type == "text":
            texts.append(block.text or "")
        elif block.type == "thinking":
            thoughts.append(block.thinking or "")
            if block.signature:
                text = block.thinking or ""
                details.append(thought_detail(len(details), text, block.signature))
        elif block.type == "redacted_thinking" and block.data:
            details.append(sealed_detail(len(details), block.data))
        elif block.type == "tool_use":
            calls.append(tool_call(block.id, block.name, arguments_of(block.input), len(calls)))
    return whole(
        texts,
        [] if hide_thoughts else thoughts,
        [] if hide_thoughts else details,
        calls,
        finish=finish_of(message.stop_reason),
        refusal=refusal_of(message.stop_reason, message.stop_details),
    )


def whole(
    texts: list[str],
    thoughts: list[str],
    details: list[Object],
    calls: list[Object],
    *,
    finish: str,
    refusal: str | None,
) -> Choice:
    """One choice of these parts; fields without a part stay absent."""
    said = AssistantMessage(
        role="assistant",
        content="".join(texts) if texts or not calls else None,
        refusal=refusal or UNSET,
        tool_calls=calls or UNSET,
        reasoning_content="".join(thoughts) or UNSET,
        reasoning_details=details or UNSET,
    )
    return Choice(index=0, message=said, finish_reason=finish)
