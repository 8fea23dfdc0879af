"""The tools of a canonical request, and which of them may or must be called."""

from typing import Literal

import msgspec

from plugins.anthropic.conversation import Conversation, cache_control
from plugins.chat import ChatRequest, Object
from plugins.contract import AdapterError, FailureKind


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One function. ``schema`` is the JSON schema of its arguments, always an object's."""

    name: str
    description: str = ""
    schema: Object
    strict: bool = False
    cache: Object | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """``any``: some tool must be called. ``tool``: the one of that name must."""

    kind: Literal["auto", "any", "tool", "none"]
    name: str = ""


def tools_of(request: ChatRequest) -> list[Tool]:
    """Raises AdapterError (BAD_REQUEST) for tools that are not functions."""
    return [_tool(tool, f"tools[{number}]") for number, tool in enumerate(request.tools or ())]


def tools_used(conversation: Conversation) -> list[Tool]:
    """Tools that stand for those called earlier, for a request that names none: both providers
    refuse a conversation with calls in it and no tools."""
    schema = {"type": "object", "properties": {}}
    return [Tool(name=name, schema=schema) for name in conversation.tool_names()]


def choice_of(request: ChatRequest) -> Choice | None:
    """None where the request leaves it to the provider. Raises AdapterError (BAD_REQUEST)."""
    said = request.tool_choice
    if isinstance(said, dict):
        function = said.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if said.get("type") == "function" and isinstance(name, str) and name:
            return Choice(kind="tool", name=name)
        raise _refused("tool_choice", "tool_choice: expected a function's name")
    if not isinstance(said, str):
        return None
    if said == "auto":
        return Choice(kind="auto")
    if said == "none":
        return Choice(kind="none")
    if said == "required":
        return Choice(kind="any")
    raise _refused("tool_choice", "tool_choice: expected none, auto, required or a function")


def _tool(tool: Object, where: str) -> Tool:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise _refused("tools", f"{where}: this provider takes functions only")
    name, schema = function.get("name"), function.get("parameters")
    description = function.get("description")
    if not isinstance(name, str) or not name:
        raise _refused("tools", f"{where}.function.name: missing")
    if schema is not None and not isinstance(schema, dict):
        raise _refused("tools", f"{where}.function.parameters: expected a JSON schema")
    holder = tool if tool.get("cache_control") is not None else function
    return Tool(
        name=name,
        description=description if isinstance(description, str) else "",
        schema={"type": "object", "properties": {}, **(schema or {})},
        strict=function.get("strict") is True,
        cache=cache_control(holder, where),
    )


def _refused(param: str, message: str) -> AdapterError:
    return AdapterError(FailureKind.BAD_REQUEST, message, param=param)
