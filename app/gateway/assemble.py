"""Chunks of a streamed answer put together as the whole answer that a plain request expects."""

from typing import Any

from msgspec import UNSET, Struct

from plugins.chat import AssistantMessage, Choice, ChoiceDelta, Delta

_TEXT_FIELDS = ("content", "refusal", "reasoning", "reasoning_content")
_LIST_FIELDS = ("annotations", "reasoning_details")


class _Part(Struct):
    """One choice as it grows."""

    fields: dict[str, Any]
    tool_calls: dict[int, dict[str, Any]]
    logprobs: dict[str, Any] | None = None
    finish_reason: str = "stop"


class Assembler:
    """Feed it deltas in order; ``choices`` gives the answers by index."""

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}

    def add(self, delta: ChoiceDelta) -> None:
        """Append one delta to its choice."""
        part = self._parts.setdefault(delta.index, _Part({}, {}))
        for name in _TEXT_FIELDS:
            text = getattr(delta.delta, name)
            if isinstance(text, str):
                part.fields[name] = part.fields.get(name, "") + text
        for name in _LIST_FIELDS:
            items = getattr(delta.delta, name)
            if isinstance(items, list):
                part.fields.setdefault(name, []).extend(items)
        _add_calls(part, delta.delta)
        if delta.logprobs:
            part.logprobs = part.logprobs or {}
            for name, items in delta.logprobs.items():
                if isinstance(items, list):
                    part.logprobs.setdefault(name, []).extend(items)
        if delta.finish_reason is not None:
            part.finish_reason = delta.finish_reason

    def choices(self) -> list[Choice]:
        """The answers so far."""
        return [_choice(index, part) for index, part in sorted(self._parts.items())]


def _choice(index: int, part: _Part) -> Choice:
    fields: dict[str, Any] = {"content": None if part.tool_calls else "", **part.fields}
    return Choice(
        index=index,
        message=AssistantMessage(
            role="assistant",
            tool_calls=[part.tool_calls[n] for n in sorted(part.tool_calls)] or UNSET,
            **fields,
        ),
        logprobs=part.logprobs,
        finish_reason=part.finish_reason,
    )


def _add_calls(part: _Part, delta: Delta) -> None:
    """Tool calls come in pieces that name their index; a piece's arguments are appended."""
    for piece in delta.tool_calls or ():
        call = part.tool_calls.setdefault(piece.get("index", 0), {})
        for key, value in piece.items():
            if key == "function" and isinstance(value, dict):
                _add_function(call.setdefault("function", {}), value)
            elif key != "index":
                call[key] = value
    if isinstance(delta.function_call, dict):
        _add_function(part.fields.setdefault("function_call", {}), delta.function_call)
    if isinstance(delta.audio, dict):
        audio = part.fields.setdefault("audio", {})
        for key, value in delta.audio.items():
            grows = key in {"data", "transcript"} and isinstance(value, str)
            audio[key] = audio.get(key, "") + value if grows else value


def _add_function(function: dict[str, Any], piece: dict[str, Any]) -> None:
    for key, value in piece.items():
        if key == "arguments" and isinstance(value, str):
            function["arguments"] = function.get("arguments", "") + value
        else:
            function[key] = value
