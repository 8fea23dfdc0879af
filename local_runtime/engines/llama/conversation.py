"""A conversation as chat templates expect it: plain dictionaries, content as text, tools in one
form; and, for a template that cannot say something, the same thing in words that it can say.
"""

import hashlib
import json
from typing import Any

import msgspec

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.tools import ToolUse
from plugins.chat import ChatRequest, Message, Object

_SHORT_ID_LENGTH = 9  # what Mistral's templates insist on
_ARGUMENTS_CHARACTERS_MAX = 4 * 1024 * 1024
Plain = dict[str, Any]


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat template can express, as tried out on it: see ``template_traits``."""

    system: bool = True
    tools: bool = False
    calls: bool = False
    many_calls: bool = False
    results: bool = False
    object_arguments: bool = True
    short_ids: bool = False


def conversation_of(
    request: ChatRequest, use: ToolUse | None, traits: Traits
) -> tuple[list[Plain], list[Plain] | None]:
    """Messages and tools for the template. Raises RequestRefused naming the message at fault."""
    messages = _Reading(traits).messages(request.messages)
    tools = [function.described() for function in use.functions] if use else None
    if not (traits.calls and traits.results):
        messages = _without_tool_roles(messages)
    elif not traits.many_calls:
        messages = _one_call_each(messages)
    if tools and not traits.tools:
        _prepend(messages, tools_in_words(tools))
        tools = None
    if not traits.system:
        messages = _without_system(messages)
    return messages, tools


def tools_in_words(tools: list[Plain]) -> str:
    """The tools for a model whose template knows none, and how to call them."""
    described = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return (
        "You can call these functions:\n"
        f"{described}\n\n"
        "To call a function, write its name and its arguments as JSON between these tags, once "
        "for each call:\n"
        '<tool_call>\n{"name": "NAME", "arguments": {ARGUMENTS}}\n</tool_call>\n'
        "The results come back to you in the next message."
    )


class _Reading:
    """Reads the messages of one request, in order: results are matched with the calls before."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits
        self._names: dict[str, str] = {}
        self._unnamed = 0

    def messages(self, messages: list[Message]) -> list[Plain]:
        return [self._plain(message, f"messages[{n}]") for n, message in enumerate(messages)]

    def _plain(self, message: Message, where: str) -> Plain:
        if message.audio:
            raise refused(f"{where}.audio", "this model does not speak or hear.")
        role = "system" if message.role == "developer" else message.role
        plain: Plain = {"role": role, "content": text_of(message, where)}
        for name in ("name", "reasoning_content", "reasoning"):
            value = getattr(message, name)
            if isinstance(value, str):
                plain[name] = value
        if isinstance(value := plain.get("reasoning"), str):
            plain.setdefault("reasoning_content", value)
        calls = self._calls(message, where)
        if calls and role != "assistant":
            raise refused(f"{where}.tool_calls", "only assistant messages call tools.")
        if calls:
            plain["tool_calls"] = calls
        if role in {"tool", "function"}:
            self._result(message, plain)
        elif message.tool_call_id:
            raise refused(f"{where}.tool_call_id", "only tool messages answer a call.")
        return plain

    def _calls(self, message: Message, where: str) -> list[Plain]:
        calls = [
            self._call(call.get("function"), call.get("id"), f"{where}.tool_calls[{n}].function")
            for n, call in enumerate(message.tool_calls or [])
        ]
        if message.function_call:
            self._unnamed += 1
            calls.append(
                self._call(message.function_call, f"call_{self._unnamed}", f"{where}.function_call")
            )
        return calls

    def _call(self, function: Any, id_: Any, where: str) -> Plain:
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise refused(where, "name and arguments are missing; only functions are supported.")
        id_ = id_ if isinstance(id_, str) else ""
        self._names[id_] = function["name"]
        arguments = arguments_of(function.get("arguments"), where)
        if not self._traits.object_arguments and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        call = {"name": function["name"], "arguments": arguments}
        return {"id": self._id(id_), "type": "function", "function": call}

    def _result(self, message: Message, plain: Plain) -> None:
        id_ = message.tool_call_id or ""
        if message.role == "function":
            plain["role"] = "tool"
            id_ = f"call_{self._unnamed}"
        name = self._names.get(id_)
        if name is not None:
            plain.setdefault("name", name)
        if id_:
            plain["tool_call_id"] = self._id(id_)

    def _id(self, id_: str) -> str:
        """The id as the template takes it; the same for the same, so that results find calls."""
        if not self._traits.short_ids or (
            len(id_) == _SHORT_ID_LENGTH and id_.isascii() and id_.isalnum()
        ):
            return id_
        return hashlib.sha256(id_.encode("utf-8", "replace")).hexdigest()[:_SHORT_ID_LENGTH]


def arguments_of(given: Any, where: str) -> Any:
    """The arguments of an earlier call: an object, as templates want it; text where it is none.

    A model may have written arguments that are no JSON, and the client sends them back.
    """
    if given is None or given == "":
        return {}
    if not isinstance(given, str):
        return given
    if len(given) > _ARGUMENTS_CHARACTERS_MAX:
        raise refused(f"{where}.arguments", "too long.")
    try:
        found = msgspec.json.decode(given)
    except (msgspec.DecodeError, RecursionError):
        return given
    return found if isinstance(found, dict) else given


def text_of(message: Message, where: str) -> str:
    """A message's content as one text. Raises RequestRefused for what is no text."""
    content = message.content
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = []
        for n, part in enumerate(content):
            text = part.get("refusal" if part.get("type") == "refusal" else "text")
            if part.get("type") not in {"text", "refusal"} or not isinstance(text, str):
                raise RequestRefused(
                    f"{where}.content[{n}]: this model reads text only, not "
                    f"{str(part.get('type'))[:32]!r} parts.",
                    param="messages",
                )
            texts.append(text)
        return "\n".join(texts)
    if message.role == "assistant":
        return message.refusal if isinstance(message.refusal, str) else ""
    raise refused(f"{where}.content", "missing; it must be text.")


def refused(where: str, reason: str) -> RequestRefused:
    """Something in the messages is at fault."""
    return RequestRefused(f"{where}: {reason}", param="messages")


def call_in_words(call: Object) -> str:
    """A call as ``tools_in_words`` asks for it."""
    arguments = call["function"]["arguments"]
    if isinstance(arguments, str):
        arguments = arguments_of(arguments, "")
    said = {"name": call["function"]["name"], "arguments": arguments}
    return f"<tool_call>\n{json.dumps(said, ensure_ascii=False)}\n</tool_call>"


def _without_tool_roles(messages: list[Plain]) -> list[Plain]:
    """Calls as the assistant's text, and results as the user's; results in a row as one message."""
    said: list[Plain] = []
    for message in messages:
        calls = message.pop("tool_calls", None)
        if calls:
            texts = [message["content"], *map(call_in_words, calls)]
            message["content"] = "\n".join(text for text in texts if text)
        if message["role"] != "tool":
            said.append(message)
            continue
        name = f' name="{message["name"]}"' if "name" in message else ""
        text = f"<tool_response{name}>\n{message['content']}\n</tool_response>"
        if said and said[-1].get("answers_calls"):
            said[-1]["content"] += "\n" + text
        else:
            said.append({"role": "user", "content": text, "answers_calls": True})
    for message in said:
        message.pop("answers_calls", None)
    return said


def _one_call_each(messages: list[Plain]) -> list[Plain]:
    """Calls made at once as if made one after the other, each followed by its result."""
    said: list[Plain] = []
    results = {m.get("tool_call_id"): m for m in messages if m["role"] == "tool"}
    told: set[int] = set()
    for message in messages:
        calls = message.get("tool_calls", [])
        if id(message) in told:
            continue
        if len(calls) < 2:
            said.append(message)
            continue
        for number, call in enumerate(calls):
            alone = {"role": "assistant", "content": ""} if number else message
            said.append(alone | {"tool_calls": [call]})
            result = results.get(call["id"])
            if result is not None:
                said.append(result)
                told.add(id(result))
    return said


def _prepend(messages: list[Plain], text: str) -> None:
    """Put a text in front of the system message, or make one."""
    if messages[0]["role"] == "system":
        messages[0] = messages[0] | {"content": f"{text}\n\n{messages[0]['content']}"}
    else:
        messages.insert(0, {"role": "system", "content": text})


def _without_system(messages: list[Plain]) -> list[Plain]:
    """System messages as the beginning of the user's message behind them."""
    said: list[Plain] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif waiting and message["role"] == "user":
            said.append(message | {"content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            said.append(message)
    if waiting:
        said.append({"role": "user", "content": "\n\n".join(waiting)})
    return said
