"""``tools`` and its companions, and their older names: read, or refused by name."""

from typing import Any

import pytest

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.tools import ToolUse, tool_use_of
from tests.local_runtime.calls import chat


def tool(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def use(**params: Any) -> ToolUse | None:
    return tool_use_of(chat(**params))


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [*map(named, names)]}}


TWO = [tool("f"), tool("g")]


@pytest.mark.parametrize(
    ("params", "names", "required", "parallel"),
    [
        ({"tools": TWO}, "fg", False, True),
        ({"tools": TWO, "parallel_tool_calls": False}, "fg", False, False),
        ({"tools": TWO, "tool_choice": "required"}, "fg", True, False),
        (
            {"tools": TWO, "tool_choice": "required", "parallel_tool_calls": True},
            "fg",
            True,
            True,
        ),
        ({"tools": TWO, "tool_choice": named("g")}, "g", True, False),
        ({"tools": TWO, "tool_choice": allowed("auto", "g")}, "g", False, True),
        ({"tools": TWO, "tool_choice": allowed("required", "g", "f")}, "gf", True, False),
        ({"functions": [{"name": "f"}]}, "f", False, False),
        ({"functions": [{"name": "f"}], "function_call": {"name": "f"}}, "f", True, False),
    ],
)
def test_what_may_be_called(
    params: dict[str, Any], names: str, required: bool, parallel: bool
) -> None:
    found = use(**params)
    assert found is not None
    assert "".join(function.name for function in found.allowed) == names
    assert (found.required, found.parallel) == (required, parallel)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"tools": []},
        {"tools": TWO, "tool_choice": "none"},
        {"tool_choice": "none"},
        {"functions": [{"name": "f"}], "function_call": "none"},
    ],
)
def test_nothing_may_be_called(params: dict[str, Any]) -> None:
    assert use(**params) is None


@pytest.mark.parametrize(
    ("params", "param", "words"),
    [
        ({"tools": [tool("a b")]}, "tools", r"tools\[0\].function.name"),
        ({"tools": [tool("x" * 65)]}, "tools", "64 letters"),
        ({"tools": [tool("f\n")]}, "tools", "name"),
        ({"tools": [tool(""), tool("f")]}, "tools", "name"),
        ({"tools": [tool("f"), tool("f")]}, "tools", "more than once"),
        ({"tools": [{"type": "web_search"}]}, "tools", r"tools\[0\].*type must be 'function'"),
        ({"tools": [{"type": "function"}]}, "tools", "function is missing"),
        ({"tools": [tool("f", params={})]}, "tools", "no field 'params'"),
        ({"tools": [tool("f", parameters=[])]}, "tools", "must be a JSON Schema"),
        ({"tools": [tool("f", parameters={"type": "string"})]}, "tools", "schema of an object"),
        ({"tools": [tool("f", description=1)]}, "tools", "description"),
        ({"tools": [tool("f", strict="yes")]}, "tools", "strict"),
        ({"tools": TWO, "tool_choice": "always"}, "tool_choice", "none, auto, required"),
        ({"tools": TWO, "tool_choice": named("h")}, "tool_choice", "'h'.*f, g"),
        ({"tools": TWO, "tool_choice": {}}, "tool_choice", "None"),
        ({"tools": TWO, "tool_choice": allowed("auto")}, "tool_choice", "a list of tools"),
        ({"tools": TWO, "tool_choice": allowed("never", "f")}, "tool_choice", "mode"),
        ({"tools": TWO, "tool_choice": {"type": "allowed_tools"}}, "tool_choice", "mode"),
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tools": TWO, "functions": [{"name": "f"}]}, "functions", "give one of them"),
        ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call", "none, au"),
        ({"functions": [{"name": ""}]}, "functions", r"functions\[0\].name"),
        ({"tools": TWO, "ignore_eos": True}, "ignore_eos", "ends the answer"),
    ],
)
def test_what_is_wrong_is_named(params: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(RequestRefused, match=words) as caught:
        use(**params)
    assert caught.value.param == param
