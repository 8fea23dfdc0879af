"""Answers made canonical: what providers that follow OpenAI's format more or less get wrong.

After it, in every choice:

- tool calls are numbered 0, 1, 2 … as they appear, each with an id, a type and a name in its first
  piece and in no other, and arguments are text (BerriAI/litellm#33678: all of them with index 0;
  others leave the index out, repeat ids or make up new ones, or send arguments as objects);
- reasoning is ``reasoning_content``; the name ``reasoning`` is not used, ``reasoning_details`` pass
  as they are;
- the reason for the end is one of OpenAI's five.

Pure, and without cost where there is nothing of the kind in an answer.
"""

import secrets
from typing import Any

import msgspec
from msgspec import UNSET

from plugins.chat import AssistantMessage, Delta, Object
from plugins.contract import AdapterError, FailureKind

_ID_LENGTH_MAX = 256
_REASONS = {
    **{name: name for name in ("stop", "length", "tool_calls", "content_filter", "function_call")},
    # Together (eos), TGI (eos_token, stop_sequence), Mistral (model_length), Z.ai (sensitive), and
    # what routers pass on of Anthropic and Gemini.
    **dict.fromkeys(("max_tokens", "model_length", "MAX_TOKENS"), "length"),
    **dict.fromkeys(("tool_call", "tool_use"), "tool_calls"),
    **dict.fromkeys(("sensitive", "safety", "SAFETY", "refusal"), "content_filter"),
}
_BROKEN_OFF = frozenset({"error", "insufficient_system_resource", "network_error"})
_encoder = msgspec.json.Encoder()


def reason_of(said: str) -> str:
    """Why an answer ended, in OpenAI's words; what is not known counts as ``stop``.

    Raises AdapterError where the provider says that it broke off (OpenRouter, DeepSeek, Z.ai).
    """
    if said in _BROKEN_OFF:
        raise AdapterError(
            FailureKind.UPSTREAM,
            "the provider broke off its answer",
            detail=f"finish_reason {said}",
        )
    return _REASONS.get(said, "stop")


def mend_reasoning(part: Delta | AssistantMessage) -> None:
    """One name for the reasoning, where there is any."""
    if not part.reasoning_content:
        part.reasoning_content = part.reasoning
    part.reasoning = UNSET


def mend_message(message: AssistantMessage) -> None:
    """A whole message."""
    if message.reasoning is not UNSET:
        mend_reasoning(message)
    calls = message.tool_calls
    if not calls:
        message.tool_calls = UNSET
        return
    for call in calls:
        call.pop("index", None)
        call["id"] = _id_of(call) or _new_id()
        _set_type(call)
        function = call.get("function")
        if isinstance(function, dict):
            function["arguments"] = _text_of(function.get("arguments"))


class _Call:
    """One tool call of a stream as far as it has come."""

    __slots__ = ("arguments", "id", "named", "number")

    def __init__(self, number: int, id_: str) -> None:
        self.number = number
        self.id = id_
        self.named = ""
        self.arguments: list[str] = []

    def is_whole(self) -> bool:
        """Whether its arguments are complete JSON."""
        try:
            msgspec.json.decode("".join(self.arguments))
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class ToolCalls:
    """The tool calls of one choice of a stream."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_place: dict[Any, _Call] = {}

    def mend(self, pieces: list[Object]) -> None:
        """Pieces as they came, changed in place."""
        for piece in pieces:
            self._mend(piece)

    def _mend(self, piece: Object) -> None:
        function = piece.get("function")
        if not isinstance(function, dict):
            function = None
        name = function.get("name") if function else None
        place = _place_of(piece)
        call = self._goes_on(place, _id_of(piece), name)
        if call is None:
            call = self._begin(place, _id_of(piece))
            piece["id"] = call.id
            _set_type(piece)
            if function is not None:
                function["arguments"] = _text_of(function.get("arguments"))
        else:
            piece.pop("id", None)
            piece.pop("type", None)
            if function is not None and (call.named or not name):
                function.pop("name", None)
            if function is not None and function.get("arguments") is not None:
                function["arguments"] = _text_of(function["arguments"])
        if name and not call.named:
            call.named = str(name)
        if function is not None:
            call.arguments.append(function.get("arguments") or "")
        piece["index"] = call.number

    def _goes_on(self, place: Any, id_: str, name: Any) -> _Call | None:
        """The call that a piece belongs to, None where it begins one."""
        if id_ in self._by_id:
            return self._by_id[id_]
        call = self._by_place.get(place) if place is not None else None
        if call is None:
            if place is not None or not self._calls:
                return None
            call = self._calls[-1]
        if id_:
            # Another id at a place that is taken is another call (see the module), but for those
            # that older vLLM makes up for every piece.
            return None if name or not call.named or call.is_whole() else call
        # No id says whether a name repeats that of the call or begins the next one.
        if name and call.named and (name != call.named or call.is_whole()):
            return None
        return call

    def _begin(self, place: Any, id_: str) -> _Call:
        call = _Call(len(self._calls), id_ or _new_id())
        self._calls.append(call)
        self._by_id[call.id] = call
        if place is not None:
            self._by_place[place] = call
        return call


def _place_of(piece: Object) -> int | str | None:
    """The index that the provider gave, whatever it is worth."""
    found = piece.get("index")
    return found if isinstance(found, int | str) else None


def _id_of(call: Object) -> str:
    found = call.get("id")
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    return found if isinstance(found, str) and len(found) <= _ID_LENGTH_MAX else ""


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _set_type(call: Object) -> None:
    if not isinstance(call.get("type"), str):
        call["type"] = "custom" if "custom" in call else "function"


def _text_of(arguments: Any) -> str:
    """Arguments as text: some providers send the object itself."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else _encoder.encode(arguments).decode()
