"""What Bedrock answers, whole and streamed, reaches the caller the same."""

from typing import Any

import pytest

from plugins.bedrock.plugin import PLUGIN, BedrockSettings
from plugins.conformance import CHECKS, Check, Subject
from plugins.contract import Adapter, Usage
from tests.plugins.anthropic.answers import answer, as_message
from tests.plugins.anthropic.conftest import NOOP, WEATHER
from tests.plugins.bedrock.conftest import NEWER, NOVA, OLDER, ask, toolbox
from tests.upstreams.bedrock import PlayedBedrock

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conforms(check: Check, adapter: Adapter, played: PlayedBedrock) -> None:
    subject = Subject(
        adapter=adapter,
        call=ask,
        refused=ask(prompt="play:unavailable"),
        is_providers=played.serving.is_ours,
    )
    await check(subject)


@both
async def test_text_usage_and_id(adapter: Adapter, played: PlayedBedrock, stream: bool) -> None:
    found, usage, upstream_id = await answer(adapter, ask(stream, prompt="grüezi", model=NOVA))
    assert found["content"] == "You said: grüezi – ünï 6"
    assert found["finish"] == "stop"
    assert upstream_id == "00000001-0000"
    bill = played.books[0]
    assert usage == Usage(input_tokens=bill.input_tokens, output_tokens=bill.output_tokens)


@both
async def test_cached_tokens_are_buckets_of_their_own(
    adapter: Adapter, played: PlayedBedrock, stream: bool
) -> None:
    part = {"type": "text", "text": "a b c d", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    messages = [{"role": "user", "content": [part]}]
    _, written, _ = await answer(adapter, ask(stream, messages=messages))
    _, read, _ = await answer(adapter, ask(stream, messages=messages))
    first, second = played.books
    assert written.cache_write_tokens == first.cache_write_tokens > 0
    assert read.cache_read_tokens == second.cache_read_tokens > 0
    assert written.input_tokens == first.input_tokens == read.input_tokens > 0
    cached = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert played.bodies[0]["messages"][0]["content"][1] == cached


@both
@pytest.mark.parametrize(
    ("scene", "finish"),
    [
        ("length", "length"),
        ("window", "length"),
        ("stopped", "stop"),
        ("guardrail", "content_filter"),
        ("filtered", "content_filter"),
    ],
)
async def test_why_an_answer_ends(adapter: Adapter, scene: str, finish: str, stream: bool) -> None:
    found, usage, _ = await answer(adapter, ask(stream, prompt=f"play:{scene}"))
    assert found["finish"] == finish
    assert bool(found["refusal"]) == (finish == "content_filter")
    assert not usage.estimated


@both
@pytest.mark.parametrize("model", [OLDER, NOVA])
async def test_tools_in_parallel_and_their_results(
    adapter: Adapter, played: PlayedBedrock, model: str, stream: bool
) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "call weather call noop call weather"}
    ]
    wish: dict[str, Any] = {"model": model, "tools": [WEATHER, NOOP]}
    found, _, _ = await answer(adapter, ask(stream, messages=messages, **wish))
    assert found["finish"] == "tool_calls"
    assert [call["name"] for call in found["calls"]] == ["weather", "noop", "weather"]
    assert found["calls"][1]["arguments"] == {}
    assert found["calls"][2]["arguments"] == {"city": "Zürich 2", "deep": [1, {"x": None}]}
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result of {call['name']}"}
        for call in found["calls"]
    ]
    messages = [*messages, as_message(found), *results, {"role": "user", "content": "and now?"}]
    found, _, _ = await answer(adapter, ask(stream, messages=messages, **wish))
    assert "result of weather result of noop result of weather and now?" in found["content"]


@both
async def test_one_tool_at_a_time(adapter: Adapter, stream: bool) -> None:
    prompt = "call weather call weather"
    call = ask(stream, prompt=prompt, tools=[WEATHER], parallel_tool_calls=False)
    found, _, _ = await answer(adapter, call)
    assert len(found["calls"]) == 1


@both
@pytest.mark.parametrize("model", [OLDER, NEWER])
async def test_thoughts_come_back_signed_and_are_taken_again(
    adapter: Adapter, played: PlayedBedrock, model: str, stream: bool
) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "play:sealed call weather"}]
    wish: dict[str, Any] = {"model": model, "reasoning_effort": "high", "max_tokens": 8000}
    wish["tools"] = [WEATHER]
    found, _, _ = await answer(adapter, ask(stream, messages=messages, **wish))
    assert found["thoughts"] == "Let me think about play:sealed call weather"
    assert [detail["type"] for detail in found["details"]] == [
        *("reasoning.text", "reasoning.encrypted")
    ]
    result = {"role": "tool", "tool_call_id": found["calls"][0]["id"], "content": "sunny"}
    messages = [*messages, as_message(found), result]
    again, _, _ = await answer(adapter, ask(stream, messages=messages, **wish))
    assert "sunny" in again["content"]
    sent = played.bodies[1]["messages"][1]["content"]
    assert [next(iter(part)) for part in sent] == [
        *("reasoningContent", "reasoningContent", "text", "toolUse")
    ]
    effort = played.bodies[1].get("outputConfig", {}).get("effort")
    assert effort == ("high" if model == NEWER else None)


@both
async def test_structured_output(adapter: Adapter, stream: bool) -> None:
    schema = {"type": "object", "properties": {"said": {"type": "string", "maxLength": 9}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    found, _, _ = await answer(adapter, ask(stream, prompt="hello", response_format=form))
    assert found["content"] == '{"said": "hello"}'


@both
async def test_usage_that_is_not_reported_is_estimated(adapter: Adapter, stream: bool) -> None:
    found, usage, _ = await answer(adapter, ask(True, prompt="play:no_metadata"))
    assert found["finish"] == "stop"
    assert usage.estimated
    assert usage.output_tokens > 0


@pytest.mark.parametrize("slice_bytes", [1, 7, 64])
async def test_stream_cut_anywhere(
    adapter: Adapter, played: PlayedBedrock, slice_bytes: int
) -> None:
    whole = await answer(adapter, ask(False, prompt="call weather", tools=[WEATHER]))
    played.slice_bytes = slice_bytes
    streamed = await answer(adapter, ask(True, prompt="call weather", tools=[WEATHER]))
    assert streamed[:2] == whole[:2]


def test_offers_say_what_a_model_can_do() -> None:
    offers = PLUGIN.build(BedrockSettings(region="eu-central-2"), toolbox()).offers()
    params = [offer.supported_params or frozenset[str]() for offer in offers]
    older, newer, nova, nova_2, gpt, mistral = params
    assert {"top_k", "temperature", "reasoning", "structured_outputs"} <= older
    assert not newer & {"temperature", "top_p", "top_k"}
    assert "reasoning_effort" in newer & nova_2 & gpt
    assert "reasoning_effort" not in nova | mistral
    assert "parallel_tool_calls" in older & newer
    assert "structured_outputs" not in newer | nova
    assert "parallel_tool_calls" not in nova
    assert offers[0].input_modalities == frozenset({"text", "image", "file"})
    assert offers[2].input_modalities is None
    assert not any(offer.abort_stops_billing for offer in offers)
