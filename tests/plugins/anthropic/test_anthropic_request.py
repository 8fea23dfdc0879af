"""How a canonical chat becomes a request, and what is refused by name before it is sent."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.anthropic import conversation, models, request, schema
from plugins.contract import Adapter, AdapterError, FailureKind
from tests.plugins.anthropic.answers import answer
from tests.plugins.anthropic.conftest import NEWER, OLDER, PNG, WEATHER, ask, fetch
from tests.plugins.anthropic.said import PDF, PICTURE, SCHEMAS, conversations, user
from tests.upstreams.anthropic import PlayedAnthropic
from tests.upstreams.anthropic_rules import complaint, signature_of

Json = dict[str, Any]


async def sent(**params: Any) -> Json:
    """The body of a call."""
    call = ask(**params)
    can = models.abilities_of(call.upstream_id)
    turns = await conversation.read(call.chat.messages, fetch, leave_https=True)
    body: Json = json.loads(request.encode(call, turns, can))
    return body


async def test_instructions_are_joined_and_turns_alternate() -> None:
    cache = {"type": "ephemeral"}
    body = await sent(
        messages=[
            {"role": "system", "content": "one"},
            {"role": "user", "content": "a"},
            {"role": "user", "content": "  "},
            {"role": "user", "content": "b"},
            {
                "role": "developer",
                "content": [{"type": "text", "text": "two", "cache_control": cache}],
            },
            {"role": "assistant", "content": "c"},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "user", "content": "d"},
        ]
    )
    assert body["system"] == [
        {"type": "text", "text": "one"},
        {"type": "text", "text": "two", "cache_control": cache},
    ]
    assert [(m["role"], [b["text"] for b in m["content"]]) for m in body["messages"]] == [
        ("user", ["a", "b"]),
        ("assistant", ["c", "no"]),
        ("user", ["d"]),
    ]
    assert complaint(body) is None


async def test_pictures_and_files() -> None:
    text = "data:text/plain;base64," + base64.b64encode("grüezi".encode()).decode()
    body = await sent(
        messages=user(
            {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
            {"type": "image_url", "image_url": {"url": "http://example.com/x.png"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
            {"type": "file", "file": {"file_data": text}},
            {"type": "file", "file": {"file_data": "https://example.com/x.pdf"}},
        )
    )
    assert complaint(body) is None
    sources = [block["source"] for block in body["messages"][0]["content"]]
    assert [source["type"] for source in sources] == [
        *("base64", "url", "base64", "base64", "text", "url")
    ]
    assert sources[0]["media_type"] == "image/png", "what the bytes show, not what the label says"
    assert base64.b64decode(sources[2]["data"]) == PNG, "plain http is read by the host"
    assert body["messages"][0]["content"][3]["title"] == "a.pdf"
    assert sources[4]["data"] == "grüezi"


async def test_parameters_have_anthropic_s_names() -> None:
    body = await sent(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop="END",
        user="u-1",
        max_tokens=7,
        tools=[{**WEATHER, "cache_control": {"type": "ephemeral"}}],
        tool_choice="required",
    )
    assert complaint(body) is None
    assert {name: body[name] for name in ("temperature", "top_p", "top_k", "max_tokens")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "max_tokens": 7,
    }
    assert body["stop_sequences"] == ["END"]
    assert body["metadata"] == {"user_id": "u-1"}
    assert body["tool_choice"] == {"type": "any"}
    assert body["tools"][0]["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"type": "function", "function": {"name": "weather"}},
            True,
            {"type": "tool", "name": "weather"},
        ),
    ],
)
async def test_tool_choice(choice: Any, parallel: bool | None, written: Json | None) -> None:
    body = await sent(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == written
    assert complaint(body) is None


@pytest.mark.parametrize(
    ("model", "wish", "thinking", "effort"),
    [
        (OLDER, {"reasoning_effort": "medium"}, {"type": "enabled", "budget_tokens": 5000}, None),
        (OLDER, {"reasoning_effort": "minimal"}, {"type": "enabled", "budget_tokens": 1024}, None),
        (
            OLDER,
            {"reasoning": {"max_tokens": 2000}},
            {"type": "enabled", "budget_tokens": 2000},
            None,
        ),
        (OLDER, {"reasoning_effort": "none"}, None, None),
        (NEWER, {"reasoning_effort": "none"}, {"type": "disabled"}, None),
        (NEWER, {"reasoning": {"enabled": False}}, {"type": "disabled"}, None),
        (
            NEWER,
            {"reasoning_effort": "minimal"},
            {"type": "adaptive", "display": "summarized"},
            "low",
        ),
        (
            NEWER,
            {"reasoning": {"effort": "xhigh", "exclude": True}},
            {"type": "adaptive", "display": "omitted"},
            "xhigh",
        ),
        (
            "claude-opus-4-6",
            {"reasoning_effort": "xhigh"},
            {"type": "adaptive", "display": "summarized"},
            "max",
        ),
        (
            "claude-opus-4-6",
            {"reasoning": {"max_tokens": 2000}},
            {"type": "enabled", "budget_tokens": 2000},
            None,
        ),
        (
            NEWER,
            {"reasoning": {"enabled": True}},
            {"type": "adaptive", "display": "summarized"},
            "medium",
        ),
        (NEWER, {"reasoning": {"exclude": False}}, None, None),
    ],
)
async def test_reasoning(model: str, wish: Json, thinking: Json | None, effort: str | None) -> None:
    body = await sent(model=model, max_tokens=10_000, **wish)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert complaint(body) is None


REFUSED: list[tuple[str, Json]] = [
    ("temperature", {"temperature": 1.5}),
    ("n", {"n": 2}),
    ("stop", {"stop": ["\n"]}),
    ("logprobs", {"logprobs": True}),
    ("response_format", {"response_format": {"type": "json_object"}}),
    ("response_format", {"response_format": {"type": "json_schema", "json_schema": {}}}),
    ("tools", {"tools": [{"type": "custom", "custom": {"name": "x"}}]}),
    ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools"}}),
    ("reasoning_effort", {"reasoning_effort": "enormous"}),
    ("reasoning", {"reasoning": {"efort": "low"}}),
    ("reasoning", {"model": NEWER, "reasoning": {"max_tokens": 2000}}),
    ("reasoning", {"max_tokens": 1500, "reasoning": {"max_tokens": 2000}}),
    ("reasoning_effort", {"model": "claude-3-5-haiku-latest", "reasoning_effort": "low"}),
    ("max_completion_tokens", {"max_tokens": 500, "reasoning_effort": "low"}),
    ("messages", {"messages": [{"role": "system", "content": "alone"}]}),
    ("messages", {"messages": [{"role": "assistant", "content": "first"}]}),
    ("messages", {"messages": [{"role": "function", "name": "f", "content": "x"}]}),
    ("messages", {"messages": user({"type": "input_audio", "input_audio": {}})}),
    ("messages", {"messages": user({"type": "image_url", "image_url": "s3://bucket/key"})}),
    ("messages", {"messages": user({"type": "image_url", "image_url": "data:image/png,x"})}),
    ("messages", {"messages": user({"type": "image_url", "image_url": "data:;base64,AA=="})}),
    ("messages", {"messages": user({"type": "file", "file": {"file_id": "f-1"}})}),
    ("messages", {"messages": user({"type": "text", "text": "x", "cache_control": {"a": 1}})}),
]


@pytest.mark.parametrize(("param", "params"), REFUSED)
async def test_what_cannot_be_sent_is_refused_by_name(
    adapter: Adapter, played: PlayedAnthropic, param: str, params: Json
) -> None:
    with pytest.raises(AdapterError) as caught:
        await answer(adapter, ask(**params))
    assert caught.value.kind is FailureKind.BAD_REQUEST
    assert caught.value.param == param
    assert played.serving.asked == []


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', "nope"])
async def test_arguments_that_are_no_object_are_refused_by_their_place(arguments: str) -> None:
    function = {"name": "weather", "arguments": arguments}
    call = {"id": "c", "type": "function", "function": function}
    said = {"role": "assistant", "tool_calls": [call]}
    with pytest.raises(AdapterError) as caught:
        await sent(messages=[{"role": "user", "content": "x"}, said])
    assert caught.value.message.startswith("messages[1].tool_calls[0].function.arguments: not ")


async def test_ids_of_other_providers_are_replaced_alike_on_both_sides() -> None:
    call = {"id": "functions.weather:0", "function": {"name": "weather", "arguments": ""}}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.weather:0", "content": ""},
    ]
    body = await sent(messages=messages)
    assert complaint(body) is None
    assert body["tool_choice"] == {"type": "none"}, "no tools were offered this time"
    assert body["tools"][0]["name"] == "weather"


async def test_thoughts_of_others_are_left_out_and_pieces_are_joined() -> None:
    thought = "one two"
    details = [
        {"type": "reasoning.encrypted", "data": "x", "format": "openai-responses-v1"},
        {"type": "reasoning.text", "text": "one ", "index": 0},
        {"type": "reasoning.text", "text": "two", "signature": signature_of(thought), "index": 0},
        {"type": "reasoning.text", "text": "unsigned"},
    ]
    said = {"role": "assistant", "content": "a", "reasoning_details": details}
    body = await sent(messages=[{"role": "user", "content": "x"}, said])
    assert complaint(body) is None
    assert [b["type"] for b in body["messages"][1]["content"]] == ["thinking", "text"]
    assert body["messages"][1]["content"][0]["thinking"] == thought


@pytest.mark.parametrize(
    ("name", "adaptive", "budget", "sampling", "structured"),
    [
        ("claude-3-5-haiku-20241022", False, False, True, False),
        ("claude-3-7-sonnet-latest", False, True, True, False),
        ("anthropic.claude-v2:1", False, False, True, False),
        ("claude-sonnet-4-20250514", False, True, True, False),
        ("claude-opus-4-1-20250805", False, True, True, True),
        ("eu.anthropic.claude-haiku-4-5-20251001-v1:0", False, True, True, True),
        ("us.anthropic.claude-opus-4-6-v1", True, True, True, True),
        ("claude-opus-4-8", True, False, False, True),
        ("claude-sonnet-5", True, False, False, True),
        ("claude-mythos-preview", True, False, False, True),
        ("glm-5", False, True, True, False),
    ],
)
def test_abilities_are_read_from_names(
    name: str, adaptive: bool, budget: bool, sampling: bool, structured: bool
) -> None:
    found = models.abilities_of(name)
    assert (found.adaptive, found.budget, found.sampling, found.structured) == (
        *(adaptive, budget, sampling, structured),
    )


def test_schema_keeps_what_the_grammar_knows() -> None:
    given_schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "description": "A thing",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "maximum": 3},
            "when": {"type": "string", "format": "date"},
            "many": {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 2},
            "one": {"oneOf": [{"type": "null"}, {"type": "object"}]},
        },
        "additionalProperties": True,
        "$defs": {"x": {"type": "string", "pattern": "^a"}},
    }
    found = schema.relaxed(given_schema, "tools")
    assert found["additionalProperties"] is False
    assert found["description"] == "A thing"
    assert found["properties"]["n"]["description"] == "{minimum: 1, maximum: 3}"
    assert found["properties"]["when"]["format"] == "date"
    assert found["properties"]["many"] == {
        "type": "array",
        "items": {"$ref": "#/$defs/x"},
        "description": "{minItems: 2}",
    }
    assert found["properties"]["one"]["anyOf"][1] == {
        "type": "object",
        "additionalProperties": False,
        "properties": {},
    }


@given(schema_=SCHEMAS)
def test_every_schema_fits_the_grammar_and_stays(schema_: Json) -> None:
    found = schema.relaxed(schema_, "response_format")
    text = {"type": "object", "properties": {"x": found}, "additionalProperties": False}
    form = {"type": "json_schema", "schema": text}
    said = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    body = {"model": OLDER, "max_tokens": 9, "messages": said, "output_config": {"format": form}}
    assert complaint(body) is None
    assert schema.relaxed(found, "response_format") == found


@given(
    messages=conversations(),
    offered=st.booleans(),
    effort=st.none() | st.sampled_from(["none", "minimal", "high", "xhigh"]),
    model=st.sampled_from([OLDER, NEWER, "claude-opus-4-6", "claude-sonnet-4-20250514"]),
)
async def test_every_canonical_conversation_is_taken(
    messages: list[Json], offered: bool, effort: str | None, model: str
) -> None:
    tools = [WEATHER, {"type": "function", "function": {"name": "noop"}}] if offered else None
    body = await sent(
        messages=messages, tools=tools, reasoning_effort=effort, model=model, max_tokens=9000
    )
    assert complaint(body) is None
    texts = [m["content"] for m in messages if isinstance(m["content"], str)]
    written = json.dumps([body.get("system"), body["messages"]], ensure_ascii=False)
    for text in texts:
        if text.strip():
            assert json.dumps(text, ensure_ascii=False) in written, "no text is lost"
