"""The tools of a request: checked, and in one form, whichever of the API's two forms was used.

``tools``, ``tool_choice`` and ``parallel_tool_calls`` as OpenAI documents them; ``functions`` and
``function_call`` are their older names.
"""

import re
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET

from local_runtime.engines.contract import RequestRefused
from plugins.chat import ChatRequest

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_FUNCTION_FIELDS = frozenset({"name", "description", "parameters", "strict"})
# What a function takes that declares no parameters.
_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call. ``where`` is its place in the request, for messages."""

    where: str
    name: str
    description: str = ""
    parameters: dict[str, Any]
    strict: bool = False

    def described(self) -> dict[str, Any]:
        """An entry of ``tools``, as chat templates expect it."""
        function: dict[str, Any] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function | {"parameters": self.parameters}}


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """What may be called, and how. ``functions`` are all of them, ``allowed`` those to choose from.

    ``required``: the answer is a call, or several where ``parallel``.
    """

    functions: list[Function]
    allowed: list[Function]
    required: bool = False
    parallel: bool = True

    @property
    def param(self) -> str:
        """The request's parameter that describes the functions."""
        return self.functions[0].where.partition("[")[0]


def tool_use_of(request: ChatRequest) -> ToolUse | None:
    """None where nothing may be called. Raises RequestRefused naming what is wrong."""
    old = bool(request.functions)
    if old and request.tools:
        _refuse("functions", "is the old name of tools; give one of them.")
    param = "functions" if old else "tools"
    entries = getattr(request, param)
    functions = [_function(entry, f"{param}[{n}]", old) for n, entry in enumerate(entries or [])]
    names = [function.name for function in functions]
    for function in functions:
        if names.count(function.name) > 1:
            _refuse(param, f"{function.where}: {function.name!r} is there more than once.")
    choice, named = "function_call" if old else "tool_choice", "tools" if not old else "functions"
    wish = getattr(request, choice)
    wish = "auto" if wish is None or wish is UNSET else wish
    if not functions:
        if wish not in ("auto", "none"):
            _refuse(choice, f"asks for a call, but there are no {named}.")
        return None
    if request.ignore_eos is True and wish != "none":
        _refuse("ignore_eos", "cannot be combined with tools: a call ends the answer.")
    if wish == "none":
        return None
    if wish == "auto" or (wish == "required" and not old):
        return _use(request, functions, functions, required=wish == "required")
    if not isinstance(wish, dict):
        words = "none, auto" if old else "none, auto, required"
        _refuse(choice, f"must be {words} or name a function, not {wish[:32]!r}.")
    if wish.get("type") == "allowed_tools" and not old:
        chosen, mode = _allowed(wish, choice)
        allowed = [_named(functions, name, choice) for name in chosen]
        return _use(request, functions, allowed, required=mode == "required")
    name = wish.get("name") if old else _name_in(wish)
    one = _named(functions, name, choice)
    return ToolUse(functions=functions, allowed=[one], required=True, parallel=False)


def _use(
    request: ChatRequest, functions: list[Function], allowed: list[Function], *, required: bool
) -> ToolUse:
    """Several calls at once are the default where the model may call, and where it must they have
    to be asked for: small models that begin to call find no end of it."""
    asked = request.parallel_tool_calls
    parallel = asked is True or (asked is not False and not required)
    return ToolUse(
        functions=functions,
        allowed=allowed,
        required=required,
        parallel=parallel and not request.functions,
    )


def _function(entry: dict[str, Any], where: str, old: bool) -> Function:
    if not old and entry.get("type") != "function":
        _refuse(where, f"type must be 'function', not {str(entry.get('type'))[:32]!r}.")
    function = entry if old else entry.get("function")
    if not isinstance(function, dict):
        _refuse(where, "function is missing.")
    where = where if old else f"{where}.function"
    for key in function.keys() - _FUNCTION_FIELDS:
        _refuse(where, f"has no field {key[:64]!r}.")
    name = function.get("name")
    if not isinstance(name, str) or not NAME.match(name):
        _refuse(f"{where}.name", "must be 1 to 64 letters, digits, underscores and hyphens.")
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        _refuse(f"{where}.description", "must be text.")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        _refuse(f"{where}.parameters", "must be a JSON Schema of an object.")
    if parameters and parameters.get("type", "object") != "object":
        _refuse(f"{where}.parameters", "must be the schema of an object: arguments have names.")
    strict = function.get("strict")
    if strict not in (None, False, True):
        _refuse(f"{where}.strict", "must be true or false.")
    return Function(
        where=where,
        name=name,
        description=description or "",
        parameters=_NOTHING if parameters is None else parameters,
        strict=strict is True,
    )


def _allowed(wish: dict[str, Any], choice: str) -> tuple[list[Any], Any]:
    """Names and mode of OpenAI's ``allowed_tools``."""
    inner = wish.get("allowed_tools", wish)
    tools = inner.get("tools") if isinstance(inner, dict) else None
    if not isinstance(tools, list) or not tools or inner.get("mode") not in ("auto", "required"):
        _refuse(choice, "allowed_tools needs a mode (auto or required) and a list of tools.")
    return [_name_in(tool) for tool in tools], inner["mode"]


def _name_in(tool: Any) -> Any:
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _named(functions: list[Function], name: Any, choice: str) -> Function:
    found = {function.name: function for function in functions}
    if not isinstance(name, str) or name not in found:
        known = ", ".join(list(found)[:10])
        _refuse(choice, f"names {str(name)[:64]!r}, which is not among the functions: {known}.")
    return found[name]


def _refuse(where: str, reason: str) -> NoReturn:
    """``where`` may be a place inside a parameter: the error names the parameter itself."""
    raise RequestRefused(
        f"{where}: {reason}" if not reason.startswith(where) else reason,
        param=re.split(r"[.\[]", where)[0],
    )
