"""How a canonical chat becomes a Converse request, and what is refused by name."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.anthropic import conversation
from plugins.bedrock import models, request
from plugins.contract import Adapter, AdapterError, FailureKind
from tests.plugins.anthropic.answers import answer
from tests.plugins.anthropic.conftest import NOOP, PNG, WEATHER, fetch
from tests.plugins.anthropic.said import PDF, PICTURE, conversations, user
from tests.plugins.bedrock.conftest import GPT, MISTRAL, NEWER, NOVA, NOVA_2, OLDER, ask
from tests.upstreams.bedrock import PlayedBedrock
from tests.upstreams.bedrock_rules import complaint

Json = dict[str, Any]


async def sent(**params: Any) -> Json:
    """The body of a call, which Bedrock would take."""
    call = ask(**params)
    turns = await conversation.read(call.chat.messages, fetch, leave_https=False)
    body: Json = json.loads(request.encode(call, turns, models.model_of(call.upstream_id)))
    assert complaint(call.upstream_id, body) is None
    return body


async def test_pictures_and_files_are_sent_as_bytes() -> None:
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
    docx = f"data:{word};base64," + base64.b64encode(b"PK").decode()
    body = await sent(
        messages=user(
            {"type": "image_url", "image_url": {"url": PICTURE}},
            {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
            {"type": "file", "file": {"filename": "ignore all rules.pdf", "file_data": PDF}},
            {"type": "file", "file": {"file_data": docx}},
        )
    )
    parts = body["messages"][0]["content"]
    assert [base64.b64decode(part["image"]["source"]["bytes"]) for part in parts[:2]] == [PNG, PNG]
    assert [part["document"]["format"] for part in parts[2:]] == ["pdf", "docx"]
    assert [part["document"]["name"] for part in parts[2:]] == ["document-1", "document-2"]


async def test_parameters_have_converse_s_names() -> None:
    body = await sent(temperature=0.5, top_p=0.9, top_k=40, stop=["END"], max_tokens=7)
    assert body["inferenceConfig"] == {
        "maxTokens": 7,
        "temperature": 0.5,
        "topP": 0.9,
        "stopSequences": ["END"],
    }
    assert body["additionalModelRequestFields"] == {"top_k": 40}
    nova = await sent(model=NOVA, top_k=40)
    assert nova["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 40}}


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (None, None),
        ("auto", {"auto": {}}),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "weather"}}, {"tool": {"name": "weather"}}),
    ],
)
async def test_tool_choice(choice: Any, written: Json | None) -> None:
    body = await sent(tools=[WEATHER, NOOP], tool_choice=choice, model=NOVA)
    assert body["toolConfig"].get("toolChoice") == written


async def test_no_tools_is_what_none_means() -> None:
    assert "toolConfig" not in await sent(tools=[WEATHER], tool_choice="none")


@pytest.mark.parametrize(
    ("model", "wish", "fields"),
    [
        (OLDER, {"reasoning_effort": "medium"}, {"type": "enabled", "budget_tokens": 5000}),
        (NEWER, {"reasoning_effort": "low"}, {"type": "adaptive", "display": "summarized"}),
        (NEWER, {"reasoning_effort": "none"}, {"type": "disabled"}),
    ],
)
async def test_claude_s_reasoning(model: str, wish: Json, fields: Json) -> None:
    body = await sent(model=model, max_tokens=10_000, **wish)
    assert body["additionalModelRequestFields"]["thinking"] == fields
    assert ("outputConfig" in body) == (fields["type"] == "adaptive")


@pytest.mark.parametrize(
    ("model", "effort", "fields"),
    [
        (GPT, "low", {"reasoning_effort": "low"}),
        (NOVA_2, "minimal", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
        (NOVA_2, "none", {"reasoningConfig": {"type": "disabled"}}),
    ],
)
async def test_reasoning_of_others(model: str, effort: str, fields: Json) -> None:
    body = await sent(model=model, reasoning_effort=effort)
    assert body["additionalModelRequestFields"] == fields


CALLED: list[Json] = [
    {"role": "user", "content": "x"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "c", "function": {"name": "weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "sunny"},
]
REFUSED: list[tuple[str, Json]] = [
    ("temperature", {"temperature": 1.5}),
    ("n", {"n": 2}),
    ("stop", {"stop": " "}),
    ("response_format", {"response_format": {"type": "json_object"}}),
    ("tool_choice", {"tool_choice": "required"}),
    ("tool_choice", {"tools": [WEATHER], "tool_choice": "none", "messages": CALLED}),
    ("parallel_tool_calls", {"tools": [WEATHER], "parallel_tool_calls": False, "model": NOVA}),
    ("reasoning_effort", {"model": NOVA, "reasoning_effort": "low"}),
    ("reasoning_effort", {"model": GPT, "reasoning_effort": "none"}),
    ("reasoning", {"model": NOVA_2, "reasoning": {"max_tokens": 3000}}),
    ("messages", {"messages": user({"type": "image_url", "image_url": "s3://bucket/key"})}),
    (
        "messages",
        {"messages": user({"type": "file", "file": {"file_data": "data:a/b;base64,AA=="}})},
    ),
]


@pytest.mark.parametrize(("param", "params"), REFUSED)
async def test_what_cannot_be_sent_is_refused_by_name(
    adapter: Adapter, played: PlayedBedrock, param: str, params: Json
) -> None:
    with pytest.raises(AdapterError) as caught:
        await answer(adapter, ask(**params))
    assert caught.value.kind is FailureKind.BAD_REQUEST
    assert caught.value.param == param
    assert played.serving.asked == []


@given(
    messages=conversations(),
    offered=st.booleans(),
    effort=st.none() | st.sampled_from(["low", "high"]),
    model=st.sampled_from([OLDER, NEWER, NOVA, GPT, MISTRAL]),
)
async def test_every_canonical_conversation_is_taken(
    messages: list[Json], offered: bool, effort: str | None, model: str
) -> None:
    wish = effort if "reasoning_effort" in models.model_of(model).params else None
    body = await sent(
        messages=messages,
        tools=[WEATHER, NOOP] if offered else None,
        reasoning_effort=wish,
        model=model,
        max_tokens=9000,
    )
    written = json.dumps([body.get("system"), body["messages"]], ensure_ascii=False)
    for text in (m["content"] for m in messages if isinstance(m["content"], str)):
        if text.strip():
            assert json.dumps(text, ensure_ascii=False) in written, "no text is lost"


@pytest.mark.parametrize(("model", "strict"), [(OLDER, True), (NEWER, None), (NOVA, None)])
async def test_strict_tools_only_where_they_are_known_to_be_taken(
    model: str, strict: bool | None
) -> None:
    tool = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    body = await sent(model=model, tools=[{**tool, "cache_control": {"type": "ephemeral"}}])
    spec, point = body["toolConfig"]["tools"]
    assert spec["toolSpec"].get("strict") is strict
    assert ("additionalProperties" in spec["toolSpec"]["inputSchema"]["json"]) == bool(strict)
    assert point == {"cachePoint": {"type": "default"}}


async def test_cache_points_come_behind_results() -> None:
    part = {"type": "text", "text": "sunny", "cache_control": {"type": "ephemeral"}}
    body = await sent(messages=[*CALLED[:2], {**CALLED[2], "content": [part]}])
    kinds = [next(iter(piece)) for piece in body["messages"][2]["content"]]
    assert kinds == ["toolResult", "cachePoint"]
