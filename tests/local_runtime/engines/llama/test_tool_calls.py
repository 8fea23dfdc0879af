"""Calls of tools by the real starter model, in the forms of all families: held to their schemas."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from local_runtime.engines.contract import EngineEvent, Piece
from local_runtime.engines.llama.chat_template import ChatTemplate
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.prompt import PromptBuilder
from tests.local_runtime.calls import reason_of, text_of
from tests.local_runtime.engines.llama import tool_templates as templates
from tests.local_runtime.engines.llama.driving import failure, one
from tests.local_runtime.engines.llama.test_tools import named, tool

CLOSED = {"type": "object", "additionalProperties": False}
WEATHER = tool(
    "get_weather",
    parameters=CLOSED
    | {
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "unit": {"enum": ["C", "F"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "unit"],
    },
)
ADD = tool(
    "add",
    parameters=CLOSED
    | {
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
)
TOOLS = [WEATHER, ADD]


@pytest.fixture
def speaking(engine: LlamaEngine) -> Iterator[Any]:
    """Give the model another chat template."""
    own = engine._intake._prompts

    def as_in(source: str) -> None:
        template = ChatTemplate(source, bos_token="", eos_token="<|im_end|>")
        engine._intake._prompts = PromptBuilder(engine._model, template)

    yield as_in
    engine._intake._prompts = own


def calls_of(
    events: Sequence[EngineEvent], index: int = 0, *, cut_off: bool = False
) -> list[tuple[str, Any]]:
    """Names and arguments; without the last one where that was ``cut_off``."""
    parts = [
        part
        for event in events
        if isinstance(event, Piece) and event.index == index
        for part in event.tool_calls or ()
    ]
    if cut_off:
        last = max((part.index for part in parts), default=0)
        parts = [part for part in parts if part.index < last]
    return gathered(parts)


def gathered(parts: Sequence[Any]) -> list[tuple[str, Any]]:
    names: list[str] = []
    arguments: list[str] = []
    for part in parts:
        if part.name:
            assert part.index == len(names)
            assert part.id.startswith("call_")
            names.append(part.name)
            arguments.append("")
        arguments[part.index] += part.arguments
    return [(name, json.loads(text)) for name, text in zip(names, arguments, strict=True)]


def check_weather(arguments: dict[str, Any]) -> None:
    assert arguments.keys() <= {"city", "unit", "days"}
    assert isinstance(arguments["city"], str)
    assert len(arguments["city"]) <= 12
    assert arguments["unit"] in {"C", "F"}
    assert arguments.get("days", 1) in range(1, 8)


@pytest.mark.parametrize("family", [name for name in templates.FAMILIES if name != "qwen3-coder"])
def test_a_named_call_in_the_form_of_each_family(
    engine: LlamaEngine, speaking: Any, family: str
) -> None:
    speaking(templates.FAMILIES[family])
    params: dict[str, Any] = {"tools": TOOLS, "tool_choice": named("add"), "max_tokens": 250}
    events = one(engine, "What is 2 + 3?", temperature=0, **params)
    [(name, arguments)] = calls_of(events)
    assert name == "add"
    assert arguments.keys() == {"a", "b"}
    assert text_of(events) == ""
    assert reason_of(events) in {"tool_calls", "length"}


@pytest.mark.parametrize("seed", range(4))
def test_a_call_that_is_required(engine: LlamaEngine, seed: int) -> None:
    params: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 200}
    events = one(engine, "How is the weather in Oslo?", seed=seed, temperature=1.2, **params)
    [(name, arguments)] = calls_of(events)
    if name == "get_weather":
        check_weather(arguments)
    else:
        assert all(isinstance(arguments[key], int) for key in ("a", "b"))
    assert reason_of(events) == "tool_calls"
    assert text_of(events) == ""


def test_arguments_are_streamed_as_they_are_written(engine: LlamaEngine) -> None:
    events = one(
        engine, tools=[WEATHER], tool_choice="required", max_tokens=200, temperature=0, seed=1
    )
    pieces = [event for event in events if isinstance(event, Piece) and event.tool_calls]
    assert len(pieces) > 5
    check_weather(calls_of(events)[0][1])


def test_several_calls_and_several_answers(engine: LlamaEngine) -> None:
    events = one(
        engine,
        tools=[tool("ping", parameters=CLOSED | {"properties": {}})],
        tool_choice="required",
        parallel_tool_calls=True,
        n=2,
        max_tokens=120,
        temperature=0.5,
        seed=3,
    )
    for index in range(2):
        cut_off = reason_of(events, index) == "length"
        found = calls_of(events, index, cut_off=cut_off)
        assert len(found) >= 2
        assert all(call == ("ping", {}) for call in found)


def test_the_older_names(engine: LlamaEngine) -> None:
    events = one(
        engine,
        functions=[ADD["function"]],
        function_call={"name": "add"},
        max_tokens=100,
        temperature=0,
    )
    assert [name for name, _ in calls_of(events)] == ["add"]


def test_no_call_where_none_is_allowed(engine: LlamaEngine) -> None:
    params: dict[str, Any] = {"max_tokens": 20, "temperature": 0}
    events = one(engine, tools=TOOLS, tool_choice="none", **params)
    assert text_of(events) == text_of(one(engine, **params)) != ""
    assert calls_of(events) == []


def test_a_call_or_an_answer_of_a_format(engine: LlamaEngine) -> None:
    schema = CLOSED | {"properties": {"x": {"type": "boolean"}}, "required": ["x"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    kinds = set()
    for seed in range(6):
        events = one(
            engine,
            tools=[ADD],
            parallel_tool_calls=False,
            response_format=form,
            max_tokens=80,
            seed=seed,
            temperature=1.5,
        )
        if calls := calls_of(events):
            assert calls[0][1].keys() == {"a", "b"}
            assert text_of(events) == ""
        else:
            assert isinstance(json.loads(text_of(events))["x"], bool)
        kinds.add(bool(calls))
    assert kinds


UNENFORCEABLE = {"properties": {"a": {"not": {"type": "string"}}}}


def test_a_schema_that_cannot_be_guaranteed_is_refused_where_it_must_be(
    engine: LlamaEngine,
) -> None:
    loose = tool("f", parameters=UNENFORCEABLE)
    for choice in ("required", named("f")):
        failed = failure(one(engine, tools=[ADD, loose], tool_choice=choice))
        assert failed.param == "tools"
        assert "tools[1].function.parameters" in failed.message
    strict = tool("f", parameters=UNENFORCEABLE, strict=True)
    assert "tools[0].function.parameters" in failure(one(engine, tools=[strict])).message
    assert text_of(one(engine, tools=[loose], max_tokens=5))


def test_logprobs_are_those_of_what_is_said(engine: LlamaEngine) -> None:
    events = one(
        engine,
        tools=[ADD],
        tool_choice="required",
        logprobs=True,
        top_logprobs=1,
        max_tokens=60,
        temperature=0,
    )
    assert calls_of(events)
    assert all(event.logprobs is None for event in events if isinstance(event, Piece))
    events = one(engine, tools=[ADD], logprobs=True, max_tokens=30, temperature=0)
    pieces = [event for event in events if isinstance(event, Piece)]
    tokens = "".join(item.token for event in pieces for item in event.logprobs or ())
    assert tokens == text_of(events) != ""
