"""Replies whose types are not those of the format: tried only when the strict reading failed.

Known from: Mistral (content as a list of ``text`` and ``thinking`` parts), llama.cpp forks and
gateways (numbers as strings, ``index`` as null), Hugging Face's providers (``reasoning`` as an
object), Together (``text`` beside ``delta``).
"""

from typing import Any

import msgspec
from msgspec import UNSET, Raw

from plugins.chat import AssistantMessage, Delta, Object
from plugins.openai_compatible import wire


class _Loose(msgspec.Struct):
    id: Any = None
    object: Any = None
    choices: Any = None
    usage: Raw = Raw(b"null")
    error: Any = None
    message: Any = None


_decoder = msgspec.json.Decoder(_Loose)
_TEXTS = ("role", "refusal", "reasoning", "reasoning_content")
_OBJECTS = ("function_call", "audio")
_LISTS = ("tool_calls", "annotations", "reasoning_details")


def chunk_of(event: bytes) -> wire.WireChunk:
    """One event of a stream. Raises msgspec.DecodeError where it is no JSON object."""
    loose = _decoder.decode(event)
    chunk = wire.WireChunk(usage=loose.usage, error=loose.error, message=loose.message)
    chunk.id, chunk.object = _text(loose.id), _text(loose.object)
    chunk.choices = [
        wire.WireDelta(
            index=_int(choice.get("index")),
            delta=_delta(choice),
            logprobs=_object(choice.get("logprobs")),
            finish_reason=_text(choice.get("finish_reason")),
        )
        for choice in _objects(loose.choices)
    ]
    return chunk


def reply_of(body: bytes) -> wire.WireReply:
    """A whole reply. Raises msgspec.DecodeError where it is no JSON object."""
    loose = _decoder.decode(body)
    reply = wire.WireReply(usage=loose.usage, error=loose.error, message=loose.message)
    reply.id, reply.object = _text(loose.id), _text(loose.object)
    reply.choices = [
        wire.WireChoice(
            index=_int(choice.get("index")),
            message=_message(choice),
            logprobs=_object(choice.get("logprobs")),
            finish_reason=_text(choice.get("finish_reason")),
        )
        for choice in _objects(loose.choices)
    ]
    return reply


def _delta(choice: Object) -> Delta:
    found = _object(choice.get("delta")) or {}
    delta = Delta()
    _fill(delta, found)
    content, thoughts = _content(found.get("content", choice.get("text")))
    delta.content = UNSET if content is None else content
    if thoughts:
        delta.reasoning_content = thoughts
    return delta


def _message(choice: Object) -> wire.WireMessage:
    found = _object(choice.get("message")) or {}
    message = wire.WireMessage()
    _fill(message, found)
    message.role = _text(found.get("role")) or "assistant"
    message.content, thoughts = _content(found.get("content", choice.get("text")))
    if thoughts:
        message.reasoning_content = thoughts
    return message


def _fill(part: Delta | AssistantMessage, found: Object) -> None:
    """Every field that has the type it should have."""
    for name in _TEXTS:
        if isinstance(found.get(name), str):
            setattr(part, name, found[name])
    for name in _OBJECTS:
        if isinstance(found.get(name), dict):
            setattr(part, name, found[name])
    for name in _LISTS:
        items = _objects(found.get(name))
        if items:
            setattr(part, name, items)


def _content(found: Any) -> tuple[str | None, str]:
    """The text of a message, and the reasoning that is among its parts."""
    if found is None or isinstance(found, str):
        return found, ""
    if not isinstance(found, list):
        return (str(found) if isinstance(found, int | float) else None), ""
    said, thought = [], []
    for part in found:
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            inner = part.get("thinking", part.get("text"))
            thought.append(_content(inner)[0] or "")
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            said.append(part["text"])
    return "".join(said), "".join(thought)


def _objects(found: Any) -> list[Object]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _object(found: Any) -> Object | None:
    return found if isinstance(found, dict) else None


def _text(found: Any) -> str | None:
    return found if isinstance(found, str) else None


def _int(found: Any) -> int:
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 10:
        return int(found)
    return found if isinstance(found, int) else 0
