"""What the provider answers, whole and streamed, reaches the caller the same."""

from typing import Any

import pytest

from plugins.anthropic.plugin import PLUGIN, AnthropicSettings
from plugins.conformance import CHECKS, Check, Subject
from plugins.contract import Adapter, Usage
from tests.plugins.anthropic.answers import answer, as_message
from tests.plugins.anthropic.conftest import NEWER, NOOP, OLDER, WEATHER, ask, toolbox
from tests.upstreams.anthropic import PlayedAnthropic

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conforms(check: Check, adapter: Adapter, played: PlayedAnthropic) -> None:
    subject = Subject(
        adapter=adapter,
        call=ask,
        refused=ask(prompt="play:unavailable"),
        is_providers=played.serving.is_ours,
    )
    await check(subject)


@both
async def test_text_usage_and_id(adapter: Adapter, played: PlayedAnthropic, stream: bool) -> None:
    found, usage, upstream_id = await answer(adapter, ask(stream, prompt="grüezi"))
    assert found["content"] == "You said: grüezi – ünï 6"
    assert found["finish"] == "stop"
    assert upstream_id == "msg_000001"
    bill = played.books[0]
    assert usage == Usage(input_tokens=bill.input_tokens, output_tokens=bill.output_tokens)
    assert played.serving.asked[0].headers["x-api-key"] == "sk-ant-api03-key-of-the-appliance"


@both
async def test_cached_tokens_are_buckets_of_their_own(
    adapter: Adapter, played: PlayedAnthropic, stream: bool
) -> None:
    part = {"type": "text", "text": "a b c d", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    messages = [{"role": "user", "content": [part]}]
    _, written, _ = await answer(adapter, ask(stream, messages=messages))
    _, read, _ = await answer(adapter, ask(stream, messages=messages))
    first, second = played.books
    assert written.cache_write_tokens == first.cache_creation_input_tokens > 0
    assert read.cache_read_tokens == second.cache_read_input_tokens > 0
    assert written.input_tokens == first.input_tokens == read.input_tokens > 0
    assert written.cache_read_tokens == read.cache_write_tokens == 0


@both
@pytest.mark.parametrize(
    ("scene", "finish"),
    [
        ("length", "length"),
        ("window", "length"),
        ("stopped", "stop"),
        ("paused", "stop"),
        ("refusal", "content_filter"),
        ("strange", "stop"),
    ],
)
async def test_why_an_answer_ends(adapter: Adapter, scene: str, finish: str, stream: bool) -> None:
    found, usage, _ = await answer(adapter, ask(stream, prompt=f"play:{scene}"))
    assert found["finish"] == finish
    assert found["refusal"] == ("That could do harm." if scene == "refusal" else None)
    assert found["calls"] == []
    assert not usage.estimated


@both
async def test_tools_in_parallel_and_their_results(
    adapter: Adapter, played: PlayedAnthropic, stream: bool
) -> None:
    messages = [{"role": "user", "content": "call weather call noop call weather"}]
    tools = [WEATHER, NOOP]
    found, _, _ = await answer(adapter, ask(stream, messages=messages, tools=tools))
    assert found["finish"] == "tool_calls"
    assert [call["name"] for call in found["calls"]] == ["weather", "noop", "weather"]
    assert found["calls"][1]["arguments"] == {}
    assert found["calls"][2]["arguments"] == {"city": "Zürich 2", "deep": [1, {"x": None}]}
    assert len({call["id"] for call in found["calls"]}) == 3
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result of {call['name']}"}
        for call in found["calls"]
    ]
    after = {"role": "user", "content": "and now?"}
    messages = [*messages, as_message(found), *results, after]
    found, _, _ = await answer(adapter, ask(stream, messages=messages, tools=tools))
    assert "result of weather result of noop result of weather and now?" in found["content"]
    assert [message["role"] for message in played.bodies[1]["messages"]] == [
        *("user", "assistant", "user")
    ]


@both
async def test_one_tool_at_a_time(adapter: Adapter, stream: bool) -> None:
    call = ask(
        stream,
        prompt="call weather call weather",
        tools=[WEATHER],
        parallel_tool_calls=False,
    )
    found, _, _ = await answer(adapter, call)
    assert len(found["calls"]) == 1


@both
@pytest.mark.parametrize("model", [OLDER, NEWER])
async def test_thoughts_come_back_signed_and_are_taken_again(
    adapter: Adapter, played: PlayedAnthropic, model: str, stream: bool
) -> None:
    messages = [{"role": "user", "content": "play:sealed call weather"}]
    tools = [WEATHER]
    wish: dict[str, Any] = {"reasoning_effort": "high", "max_tokens": 8000, "tools": tools}
    found, usage, _ = await answer(adapter, ask(stream, model=model, messages=messages, **wish))
    assert found["thoughts"] == "Let me think about play:sealed call weather"
    assert [detail["type"] for detail in found["details"]] == [
        *("reasoning.text", "reasoning.encrypted")
    ]
    assert found["details"][0]["text"] == found["thoughts"]
    assert usage.reasoning_tokens > 0
    assert usage.reasoning_tokens + usage.output_tokens == played.books[0].output_tokens
    result = {"role": "tool", "tool_call_id": found["calls"][0]["id"], "content": "sunny"}
    messages = [*messages, as_message(found), result]
    again, _, _ = await answer(adapter, ask(stream, model=model, messages=messages, **wish))
    assert "sunny" in again["content"]
    sent = played.bodies[1]["messages"][1]["content"]
    assert [block["type"] for block in sent] == [
        *("thinking", "redacted_thinking", "text", "tool_use")
    ]


@both
async def test_hidden_thoughts_stay_hidden(adapter: Adapter, stream: bool) -> None:
    wish = {"effort": "low", "exclude": True}
    found, usage, _ = await answer(adapter, ask(stream, reasoning=wish, max_tokens=4000))
    assert found["thoughts"] == ""
    assert found["details"] == []
    assert usage.reasoning_tokens > 0


@both
async def test_thoughts_that_were_not_sent_back_cost_the_thinking_only(
    adapter: Adapter, played: PlayedAnthropic, stream: bool
) -> None:
    wish: dict[str, Any] = {"reasoning_effort": "low", "max_tokens": 4000, "tools": [WEATHER]}
    messages: list[dict[str, Any]] = [{"role": "user", "content": "call weather"}]
    found, _, _ = await answer(adapter, ask(stream, messages=messages, **wish))
    result = {"role": "tool", "tool_call_id": found["calls"][0]["id"], "content": "sunny"}
    forgetful: dict[str, Any] = {**as_message(found), "reasoning_details": None}
    messages = [*messages, forgetful, result]
    found, _, _ = await answer(adapter, ask(stream, messages=messages, **wish))
    assert "sunny" in found["content"]
    assert "thinking" not in played.bodies[1]


@both
async def test_structured_output(adapter: Adapter, played: PlayedAnthropic, stream: bool) -> None:
    schema = {"type": "object", "properties": {"said": {"type": "string", "maxLength": 9}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    found, _, _ = await answer(adapter, ask(stream, prompt="hello", response_format=form))
    assert found["content"] == '{"said": "hello"}'
    sent = played.bodies[0]["output_config"]["format"]["schema"]
    assert sent["additionalProperties"] is False
    assert sent["properties"]["said"] == {"type": "string", "description": "{maxLength: 9}"}


@pytest.mark.parametrize("slice_bytes", [1, 7, 64])
async def test_stream_cut_anywhere(
    adapter: Adapter, played: PlayedAnthropic, slice_bytes: int
) -> None:
    whole, used, _ = await answer(adapter, ask(False, prompt="call weather", tools=[WEATHER]))
    played.slice_bytes = slice_bytes
    call = ask(True, prompt="call weather", tools=[WEATHER])
    assert (await answer(adapter, call))[:2] == (whole, used)


def test_offers_say_what_a_model_can_do() -> None:
    built = PLUGIN.build(AnthropicSettings(), toolbox())
    older, newer = built.offers()
    assert older.supported_params is not None
    assert newer.supported_params is not None
    assert {"temperature", "top_k", "reasoning_effort", "tools"} <= older.supported_params
    assert not newer.supported_params & {"temperature", "top_p", "top_k"}
    assert {"structured_outputs", "response_format", "reasoning"} <= newer.supported_params
    assert older.input_modalities == frozenset({"text", "image", "file"})
    assert not older.abort_stops_billing
