"""What a chat template can express, and how its model writes calls: found by trying it out.

A template is a program, so reading its source would be guessing. It is run on small conversations
instead, and what it makes of them is looked at.
"""

import json
from typing import Any

import msgspec

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.chat_template import ChatTemplate
from local_runtime.engines.llama.conversation import Traits
from local_runtime.engines.llama.reply_reader import Kind, ReplyReader
from local_runtime.engines.llama.tool_syntax import (
    FAMILIES,
    HERMES,
    REASONING,
    ReasoningTags,
    ToolSyntax,
)

# Words that no template contains by itself.
_WORD = "qzvx"
_NAME = f"{_WORD}_function"
_ARGUMENTS = {f"{_WORD}_key": f"{_WORD}_value"}
_ID = f"call_{_WORD}0123456789"
_SHORT_ID = f"{_WORD}01234"
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Does it.",
        "parameters": {"type": "object", "properties": {f"{_WORD}_key": {"type": "string"}}},
    },
}
_USER = {"role": "user", "content": f"{_WORD}_user"}
Plain = dict[str, Any]


class Speech(msgspec.Struct, frozen=True, kw_only=True):
    """A model's ways, as far as its template shows them."""

    traits: Traits
    syntax: ToolSyntax
    reasoning: tuple[ReasoningTags, ...] = ()


def speech_of(template: ChatTemplate) -> Speech:
    """Try the template out. It never fails: what a template refuses it cannot express."""
    system = f"{_WORD}_system" in _tried(
        template, [{"role": "system", "content": f"{_WORD}_system"}, _USER]
    )
    tools = _NAME in _tried(template, [_USER], tools=[_TOOL])
    traits = Traits(system=system, tools=tools)
    for short in (False, True):
        for objects in (True, False):
            text = _tried(template, _asked(1, objects, short), tools=[_TOOL] if tools else None)
            if _NAME in text and f"{_WORD}_value" in text and not _mangled(text):
                return _with_calls(template, traits, objects, short)
    return Speech(traits=traits, syntax=HERMES, reasoning=_reasoning_of(template))


def _mangled(text: str) -> bool:
    """Whether arguments are no JSON: quoted twice, or written as Python does."""
    return f'\\"{_WORD}' in text or f"'{_WORD}_key'" in text


def _with_calls(template: ChatTemplate, traits: Traits, objects: bool, short: bool) -> Speech:
    tools = [_TOOL] if traits.tools else None
    result = {
        "role": "tool", "content": f"{_WORD}_result", "name": _NAME,
        "tool_call_id": _SHORT_ID if short else _ID,
    }  # fmt: skip
    results = f"{_WORD}_result" in _tried(
        template, [*_asked(1, objects, short), result], tools=tools
    )
    many = _tried(template, _asked(2, objects, short), tools=tools).count(f"{_WORD}_value") >= 2
    traits = msgspec.structs.replace(
        traits,
        calls=True,
        results=results,
        many_calls=many,
        object_arguments=objects,
        short_ids=short,
    )
    syntax = _syntax_of(template, objects, short, tools) if results else None
    return Speech(traits=traits, syntax=syntax or HERMES, reasoning=_reasoning_of(template))


def _syntax_of(
    template: ChatTemplate, objects: bool, short: bool, tools: list[Plain] | None
) -> ToolSyntax | None:
    """The first family that reads the template's own rendering of a call as that call."""
    prompt = _tried(template, [_USER], tools=tools, add_generation_prompt=True)
    whole = _tried(template, _asked(1, objects, short), tools=tools)
    same = 0
    while same < min(len(prompt), len(whole)) and prompt[same] == whole[same]:
        same += 1
    text = whole[same:]
    for syntax in sorted(FAMILIES, key=lambda family: family.hint not in template.source):
        reader = ReplyReader(
            syntax=syntax,
            functions={_NAME: _TOOL["function"]["parameters"]},
            reasoning=REASONING,
        )
        segments = [*reader.push(text), *reader.finish()]
        calls = [
            call for segment in segments if segment.kind is Kind.CALL for call in segment.calls
        ]
        names = [call.name for call in calls if call.name]
        said = "".join(call.arguments for call in calls)
        if names == [_NAME] and _decoded(said) == _ARGUMENTS:
            return syntax
    return None


def _asked(calls: int, objects: bool, short: bool) -> list[Plain]:
    """A conversation in which the assistant calls a function, once or several times."""
    arguments = _ARGUMENTS if objects else json.dumps(_ARGUMENTS)
    said = [
        {
            "id": (_SHORT_ID if short else _ID)[:-1] + str(n),
            "type": "function",
            "function": {"name": _NAME, "arguments": arguments},
        }
        for n in range(calls)
    ]
    return [_USER, {"role": "assistant", "content": "", "tool_calls": said}]


def _reasoning_of(template: ChatTemplate) -> tuple[ReasoningTags, ...]:
    return tuple(tags for tags in REASONING if tags.closes in template.source)


def _tried(
    template: ChatTemplate,
    messages: list[Plain],
    *,
    tools: list[Plain] | None = None,
    add_generation_prompt: bool = False,
) -> str:
    """What the template makes of it; nothing where it refuses."""
    try:
        return template.render(messages, tools=tools, add_generation_prompt=add_generation_prompt)
    except RequestRefused:
        return ""


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
