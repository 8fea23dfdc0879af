"""One answer in the many forms that OpenAI-compatible providers give it.

``Said`` is what a provider means; ``Quirks`` is how it says it. ``events`` and ``whole`` encode the
one with the other, and ``add_up`` is what an OpenAI client makes of a stream: it puts pieces of
text together, so that a name or an id that is sent twice would be there twice.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import UNSET

from plugins.chat import AssistantMessage, ChoiceDelta

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Said:
    """One choice: its text and reasoning in pieces, its tool calls as names and JSON."""

    text: tuple[str, ...] = ()
    thoughts: tuple[str, ...] = ()
    calls: tuple[tuple[str, str], ...] = ()
    reason: str = "stop"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Tokens; ``cached`` are of the prompt's, ``thought`` are of the completion's."""

    prompt: int = 4
    completion: int = 8
    cached: int = 0
    thought: int = 0


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """How a provider says things; the default is OpenAI's way.

    ``reasons`` are its names of reasons; an empty one is sent as "". ``details``: where it puts
    cached and reasoning tokens; ``apart``: reasoning is not among the completion's tokens.
    ``strays``: events without choices between the others. ``loose``: numbers as text.
    """

    reasoning: Literal["reasoning_content", "reasoning", "both", "parts"] = "reasoning_content"
    index: Literal["own", "zero", "none", "text"] = "own"
    ids: Literal["first", "every", "never", "random"] = "first"
    names: Literal["first", "every", "empty"] = "first"
    arguments: Literal["text", "object"] = "text"
    reasons: Json = field(default_factory=dict)
    reason_twice: bool = False
    usage: Literal["last", "with_finish", "groq", "every"] = "last"
    details: Literal["openai", "together", "mistral", "deepseek"] = "openai"
    apart: bool = False
    bill: Json = field(default_factory=dict)
    nulls: bool = False
    strays: bool = False
    lists: bool = False
    loose: bool = False
    done: str = "data: [DONE]"
    newline: str = "\n"
    comments: bool = False


def usage(spent: Spent, quirks: Quirks) -> Json:
    """The usage object."""
    completion = spent.completion - (spent.thought if quirks.apart else 0)
    found: Json = {
        "prompt_tokens": spent.prompt,
        "completion_tokens": completion,
        "total_tokens": spent.prompt + spent.completion,
    }
    if quirks.details == "together":
        found |= {"cached_tokens": spent.cached, "reasoning_tokens": spent.thought}
    elif quirks.details == "mistral":
        found |= {"num_cached_tokens": spent.cached}
    else:
        if quirks.details == "deepseek":
            found["prompt_cache_hit_tokens"] = spent.cached
        else:
            found["prompt_tokens_details"] = {"cached_tokens": spent.cached}
        found["completion_tokens_details"] = {"reasoning_tokens": spent.thought}
    if quirks.loose:
        found = {name: str(n) if isinstance(n, int) else n for name, n in found.items()}
    return found | quirks.bill


def events(said: Iterable[Said], spent: Spent, quirks: Quirks) -> Iterator[str]:
    """A stream, event by event, ends of lines included."""
    chunks = [chunk for n, each in enumerate(said) for chunk in _chunks(n, each, quirks)]
    told = usage(spent, quirks)
    if quirks.usage == "last":
        chunks.append({"choices": [], "usage": told})
    elif quirks.usage == "groq":
        chunks.append({"choices": [], "x_groq": {"id": "req_1", "usage": told}})
    elif quirks.usage == "with_finish":
        chunks[-1]["usage"] = told
    else:
        for chunk in chunks:
            chunk["usage"] = told
    end = quirks.newline * 2
    for chunk in chunks:
        if quirks.comments:
            yield f": PROCESSING{end}"
        if quirks.strays:
            yield f'data: {{"choices": []}}{end}'
        if quirks.nulls:
            chunk.setdefault("usage", None)
        text = json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", **chunk})
        yield f"data: {text}{end}"
    if quirks.done:
        yield f"{quirks.done}{end}"


def whole(said: Iterable[Said], spent: Spent, quirks: Quirks) -> bytes:
    """An answer that is not streamed."""
    choices = []
    for n, each in enumerate(said):
        message: Json = {"role": "assistant", "content": "".join(each.text) or None}
        thoughts = "".join(each.thoughts)
        if quirks.reasoning == "parts" or quirks.lists:
            message["content"] = _parts(thoughts if quirks.reasoning == "parts" else "", each.text)
        if thoughts:
            message |= _thought(thoughts, quirks)
        if each.calls:
            message["tool_calls"] = [
                _call(number, name, arguments, quirks)
                for number, (name, arguments) in enumerate(each.calls)
            ]
        elif quirks.nulls:
            message |= {"tool_calls": [], "refusal": None}
        reason = quirks.reasons.get(each.reason, each.reason)
        choices.append({"index": str(n) if quirks.loose else n, "message": message})
        choices[-1]["finish_reason"] = reason
    return json.dumps(
        {"id": "chatcmpl-1", "choices": choices, "usage": usage(spent, quirks)}
    ).encode()


def _chunks(n: int, said: Said, quirks: Quirks) -> Iterator[Json]:
    def chunk(delta: Json, reason: str | None = None) -> Json:
        choice: Json = {"index": str(n) if quirks.loose else n, "delta": delta}
        if reason is not None or quirks.nulls:
            choice["finish_reason"] = reason
        return {"choices": [choice]}

    yield chunk({"role": "assistant", "content": "" if not quirks.lists else []})
    for piece in said.thoughts:
        parts = {"content": _parts(piece, ())} if quirks.reasoning == "parts" else {}
        yield chunk(parts or _thought(piece, quirks))
    for piece in said.text:
        yield chunk({"content": _parts("", (piece,)) if quirks.lists else piece})
    for number, (name, arguments) in enumerate(said.calls):
        yield from (
            chunk({"tool_calls": [piece]}) for piece in _pieces(number, name, arguments, quirks)
        )
    reason = quirks.reasons.get(said.reason, said.reason)
    yield chunk({}, reason)
    if quirks.reason_twice:
        yield chunk({"role": "assistant", "content": ""}, reason)


def _thought(text: str, quirks: Quirks) -> Json:
    if quirks.reasoning == "parts":
        return {}
    if quirks.reasoning == "both":
        return {"reasoning": text, "reasoning_content": text}
    return {quirks.reasoning: text}


def _parts(thoughts: str, text: Iterable[str]) -> list[Json]:
    """Mistral's parts."""
    parts: list[Json] = [{"type": "text", "text": piece} for piece in text]
    if thoughts:
        inner = [{"type": "text", "text": thoughts}]
        parts.insert(0, {"type": "thinking", "thinking": inner})
    return parts


def _call(number: int, name: str, arguments: str, quirks: Quirks) -> Json:
    given: Any = json.loads(arguments) if quirks.arguments == "object" else arguments
    call: Json = {"type": "function", "function": {"name": name, "arguments": given}}
    if quirks.ids != "never":
        call["id"] = f"call_{number}"
    return call


def _pieces(number: int, name: str, arguments: str, quirks: Quirks) -> Iterator[Json]:
    """One call: its head, and its arguments in two pieces where they are text."""
    place: Json = {"index": number}
    if quirks.index == "none":
        place = {}
    elif quirks.index != "own":
        place = {"index": 0 if quirks.index == "zero" else str(number)}
    head = _call(number, name, arguments, quirks)
    if quirks.arguments == "object":
        yield {**place, **head}
        return
    half = max(1, len(arguments) // 2)
    head["function"]["arguments"] = arguments[:half]
    yield {**place, **head}
    rest: Json = {"function": {"arguments": arguments[half:]}}
    if quirks.ids in ("every", "random"):
        rest["id"] = head["id"] + ("" if quirks.ids == "every" else f"{len(arguments):x}f")
    if quirks.names != "first":
        rest["function"]["name"] = name if quirks.names == "every" else ""
    yield {**place, **rest}


@dataclass
class Heard:
    """One choice as a client has it at the end."""

    text: str = ""
    thoughts: str = ""
    calls: list[Json] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def means(self, said: Said) -> bool:
        """Whether nothing was lost, added or mixed up; ids are sent once."""
        calls = [(call["name"], call["arguments"]) for call in self.calls]
        ids = [call["id"] for call in self.calls]
        return (
            (self.text, self.thoughts) == ("".join(said.text), "".join(said.thoughts))
            and [(name, json.loads(text)) for name, text in calls]
            == [(name, json.loads(text)) for name, text in said.calls]
            and all(re.fullmatch("call_[0-9a-f]+", id_) for id_ in ids)
            and len(set(ids)) == len(ids)
            and self.reasons == [said.reason]
        )


def add_up(deltas: Iterable[ChoiceDelta]) -> dict[int, Heard]:
    """What a client has heard, by choice."""
    heard: dict[int, Heard] = {}
    for part in deltas:
        each = heard.setdefault(part.index, Heard())
        assert part.delta.reasoning in (UNSET, None)
        each.text += part.delta.content or ""
        each.thoughts += part.delta.reasoning_content or ""
        if part.finish_reason is not None:
            each.reasons.append(part.finish_reason)
        for piece in part.delta.tool_calls or ():
            while len(each.calls) <= piece["index"]:
                each.calls.append({"id": "", "name": "", "arguments": ""})
            call = each.calls[piece["index"]]
            call["id"] += piece.get("id") or ""
            call["name"] += piece["function"].get("name") or ""
            call["arguments"] += piece["function"].get("arguments") or ""
    return heard


def heard_whole(message: AssistantMessage, reason: str) -> Heard:
    """What a client has of a choice that was not streamed."""
    assert message.reasoning is UNSET
    return Heard(
        text=message.content or "",
        thoughts=message.reasoning_content or "",
        calls=[
            {
                "id": call["id"],
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"],
            }
            for call in message.tool_calls or ()
        ],
        reasons=[reason],
    )
