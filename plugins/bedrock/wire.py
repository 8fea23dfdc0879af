"""What Converse and ConverseStream answer.

Source: boto/botocore, ``data/bedrock-runtime/2023-09-30/service-2.json`` (``ConverseResponse``,
``ConverseStreamOutput``). Every block is an object with one member that says its kind; kinds that
are not read here are passed over, and usage is read apart from the answer.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from plugins.anthropic.wire import (
    DECLINED,
    NULL,
    arguments_of,
    sealed_detail,
    thought_detail,
    tool_call,
    whole,
)
from plugins.chat import Choice, Object
from plugins.contract import Usage
from plugins.http.failures import DECODE_ERRORS

# No answer of one call has more; a larger number is a provider's mistake, and not to be charged.
_Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})
"""Stop reasons of an answer that the model began and could not form."""


class _Usage(msgspec.Struct, rename="camel"):
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    cache_read_input_tokens: _Tokens | None = None
    cache_write_input_tokens: _Tokens | None = None


class ToolUse(msgspec.Struct, rename="camel", gc=False):
    """A call of a tool; ``input`` is an object, in a stream's deltas a piece of JSON text."""

    tool_use_id: str | None = None
    name: str | None = None
    input: Any = None


class _ReasoningText(msgspec.Struct, gc=False):
    text: str | None = None
    signature: str | None = None


class Reasoning(msgspec.Struct, rename="camel", gc=False):
    """A thought; in a stream ``text`` and ``signature`` come without ``reasoning_text``."""

    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None
    text: str | None = None
    signature: str | None = None


class Part(msgspec.Struct, rename="camel", gc=False):
    """A block, the start of one, or a piece of one."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[Part] | None = None


class _Output(msgspec.Struct, gc=False):
    message: _Message | None = None


class WireReply(msgspec.Struct, rename="camel", gc=False):
    """A whole answer."""

    output: _Output | None = None
    stop_reason: str | None = None
    usage: Raw = NULL

    @property
    def parts(self) -> list[Part] | None:
        """Its blocks, None where it has no message."""
        message = self.output.message if self.output is not None else None
        return message.content if message is not None else None


class WireEvent(msgspec.Struct, rename="camel", gc=False):
    """The payload of any event of a stream; its kind stands in the frame's headers."""

    content_block_index: int = 0
    start: Part | None = None
    delta: Part | None = None
    stop_reason: str | None = None
    usage: Raw = NULL
    message: str | None = None


reply_decoder = msgspec.json.Decoder(WireReply)
event_decoder = msgspec.json.Decoder(WireEvent)
_usage_decoder = msgspec.json.Decoder(_Usage | None)


def usage_of(raw: Raw) -> Usage | None:
    """The counts in buckets that do not overlap, as they come; None where they make no sense."""
    try:
        found: _Usage | None = _usage_decoder.decode(raw)
    except DECODE_ERRORS:
        return None
    if found is None or found.input_tokens is None or found.output_tokens is None:
        return None
    usage = Usage(
        input_tokens=found.input_tokens,
        cache_read_tokens=found.cache_read_input_tokens or 0,
        cache_write_tokens=found.cache_write_input_tokens or 0,
        output_tokens=found.output_tokens,
    )
    return usage if usage != Usage() else None


def finish_of(stop_reason: str | None) -> str:
    """OpenAI's word for why the answer ended."""
    return _FINISH.get(stop_reason or "", "stop")


def refusal_of(stop_reason: str | None) -> str | None:
    """What is said where a guardrail or the model's filter stopped the answer."""
    return DECLINED if finish_of(stop_reason) == "content_filter" else None


def choice_of(reply: WireReply, *, hide_thoughts: bool) -> Choice:
    """A whole answer in the canonical form."""
    texts: list[str] = []
    thoughts: list[str] = []
    details: list[Object] = []
    calls: list[Object] = []
    for part in reply.parts or ():
        if part.text is not None:
            texts.append(part.text)
        elif (use := part.tool_use) is not None:
            arguments = arguments_of(use.input)
            calls.append(tool_call(use.tool_use_id, use.name, arguments, len(calls)))
        elif (thought := part.reasoning_content) is not None:
            _take_thought(thought, thoughts, details)
    return whole(
        texts,
        [] if hide_thoughts else thoughts,
        [] if hide_thoughts else details,
        calls,
        finish=finish_of(reply.stop_reason),
        refusal=refusal_of(reply.stop_reason),
    )


def _take_thought(thought: Reasoning, thoughts: list[str], details: list[Object]) -> None:
    if (said := thought.reasoning_text) is not None:
        thoughts.append(said.text or "")
        if said.signature:
            details.append(thought_detail(len(details), said.text or "", said.signature))
    elif thought.redacted_content:
        details.append(sealed_detail(len(details), thought.redacted_content))
