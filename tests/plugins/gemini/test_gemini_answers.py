"""What the provider answers, whole and streamed, reaches the caller the same."""

from base64 import b64encode
from typing import Any

import pytest

from plugins.conformance import CHECKS, Check, Subject
from plugins.contract import Adapter, Usage
from plugins.gemini.plugin import PLUGIN, GeminiSettings
from tests.plugins.gemini.answers import answer, answers, arguments, as_message
from tests.plugins.gemini.conftest import NEWER, NOOP, OLDER, WAV, WEATHER, ask, toolbox
from tests.upstreams.gemini import KEY, PlayedGemini
from tests.upstreams.gemini_rules import UNSIGNED, signature_of

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conforms(check: Check, adapter: Adapter, played: PlayedGemini) -> None:
    subject = Subject(
        adapter=adapter,
        call=ask,
        tools=lambda stream: ask(
            stream, model=NEWER, prompt="call weather call noop", tools=[WEATHER, NOOP]
        ),
        refused=ask(prompt="play:unavailable"),
        models=toolbox().models,
        keys_seen=lambda: [str(asked.headers) for asked in played.serving.asked],
        is_providers=played.serving.is_ours,
    )
    await check(subject)


@both
async def test_text_usage_and_id(adapter: Adapter, played: PlayedGemini, stream: bool) -> None:
    found, usage, upstream_id = await answer(adapter, ask(stream, prompt="grüezi"))
    assert found["content"] == "You said: grüezi – ünï 6"
    assert found["finish"] == "stop"
    assert len(upstream_id) == 22
    bill = played.books[0]
    assert usage == Usage(input_tokens=bill.prompt, output_tokens=bill.candidates)
    asked = played.serving.asked[0]
    assert asked.headers["x-goog-api-key"] == KEY
    assert KEY not in asked.target


@both
async def test_usage_is_in_buckets_of_its_own(
    adapter: Adapter, played: PlayedGemini, stream: bool
) -> None:
    sound = {
        "type": "input_audio",
        "input_audio": {"data": b64encode(WAV).decode(), "format": "wav"},
    }
    text = {"type": "text", "text": "play:cached one two"}
    messages = [{"role": "user", "content": [text, sound]}]
    _, usage, _ = await answer(adapter, ask(stream, messages=messages, reasoning_effort="low"))
    bill = played.books[0]
    assert usage == Usage(
        input_tokens=bill.prompt - bill.cached - bill.sound,
        cache_read_tokens=bill.cached,
        audio_input_tokens=bill.sound,
        output_tokens=bill.candidates,
        reasoning_tokens=bill.thoughts,
    )
    assert min(bill.cached, bill.sound, bill.thoughts) > 0


@both
@pytest.mark.parametrize(
    ("scene", "finish"),
    [
        ("length", "length"),
        ("safety", "content_filter"),
        ("recitation", "content_filter"),
        ("spii", "content_filter"),
        ("strange", "stop"),
        ("empty", "stop"),
        ("new_reason", "stop"),
    ],
)
async def test_why_an_answer_ends(adapter: Adapter, scene: str, finish: str, stream: bool) -> None:
    found, usage, _ = await answer(adapter, ask(stream, prompt=f"play:{scene}"))
    assert found["finish"] == finish
    assert found["calls"] == []
    assert (found["content"] == "") is (scene in ("safety", "empty"))
    assert not usage.estimated


@both
@pytest.mark.parametrize("model", [OLDER, NEWER])
@pytest.mark.parametrize("kept", ["both", "extra", "details"])
async def test_tools_in_parallel_their_signatures_and_results(
    adapter: Adapter, played: PlayedGemini, model: str, kept: str, stream: bool
) -> None:
    messages = [{"role": "user", "content": "call weather call noop call weather"}]
    tools = [WEATHER, NOOP]
    found, _, _ = await answer(adapter, ask(stream, model=model, messages=messages, tools=tools))
    calls = found["calls"]
    assert found["finish"] == "tool_calls"
    assert [call["function"]["name"] for call in calls] == ["weather", "noop", "weather"]
    assert [arguments(call) for call in calls[1:]] == [
        *({}, {"city": "Zürich 2", "deep": [1, {"x": None}]})
    ]
    assert len({call["id"] for call in calls}) == 3
    assert ["extra_content" in call for call in calls] == [model == NEWER, False, False]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result {number}"}
        for number, call in enumerate(calls)
    ]
    answered = as_message(found, extra=kept != "details", details=kept != "extra")
    after = {"role": "user", "content": "and now?"}
    messages = [*messages, answered, *results, after]
    found, _, _ = await answer(adapter, ask(stream, model=model, messages=messages, tools=tools))
    assert played.refused == []
    assert found["content"].startswith("You said: and now?")
    sent = played.bodies[1]["contents"]
    assert [content["role"] for content in sent] == ["user", "model", "user", "user"]
    first = next(part for part in sent[1]["parts"] if "functionCall" in part)
    signed = signature_of(first["functionCall"]) if model == NEWER else None
    assert first.get("thoughtSignature") == signed
    assert [part["functionResponse"]["name"] for part in sent[2]["parts"]] == [
        *("weather", "noop", "weather")
    ]


@both
async def test_calls_of_other_providers_are_sent_on_unsigned(
    adapter: Adapter, played: PlayedGemini, stream: bool
) -> None:
    function = {"name": "weather", "arguments": '{"city": "Bern"}'}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call|other=1", "type": "function", "function": function}],
            "reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "format": "other"}],
        },
        {"role": "tool", "tool_call_id": "call|other=1", "content": "sunny"},
    ]
    call = ask(stream, model=NEWER, messages=messages, tools=[WEATHER])
    found, _, _ = await answer(adapter, call)
    assert "sunny" in found["content"]
    assert played.bodies[0]["contents"][1]["parts"][0]["thoughtSignature"] == UNSIGNED


@both
async def test_signature_of_a_text_goes_back_with_it(
    adapter: Adapter, played: PlayedGemini, stream: bool
) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
    found, _, _ = await answer(adapter, ask(stream, model=NEWER, messages=messages))
    assert [detail["type"] for detail in found["details"]] == ["reasoning.encrypted"]
    messages += [as_message(found), {"role": "user", "content": "more"}]
    await answer(adapter, ask(stream, model=NEWER, messages=messages))
    part = played.bodies[1]["contents"][1]["parts"][0]
    assert part == {
        "text": found["content"],
        "thoughtSignature": found["details"][0]["data"],
    }


@both
async def test_thoughts(adapter: Adapter, played: PlayedGemini, stream: bool) -> None:
    found, usage, _ = await answer(adapter, ask(stream, prompt="hi", reasoning_effort="medium"))
    assert found["thoughts"] == "Let me think about hi"
    assert usage.reasoning_tokens == played.books[0].thoughts
    wish = {"effort": "low", "exclude": True}
    found, _, _ = await answer(adapter, ask(stream, prompt="hi", reasoning=wish))
    assert found["thoughts"] == ""
    assert [body["generationConfig"]["thinkingConfig"] for body in played.bodies] == [
        {"includeThoughts": True, "thinkingBudget": 8192},
        {"includeThoughts": False, "thinkingBudget": 1024},
    ]


@both
async def test_several_answers_and_likelihoods(
    adapter: Adapter, played: PlayedGemini, stream: bool
) -> None:
    call = ask(stream, prompt="a b", n=3, logprobs=True, top_logprobs=2)
    found, usage, _ = await answers(adapter, call)
    assert sorted(found) == [0, 1, 2]
    assert len({each["content"] for each in found.values()}) == 3
    for each in found.values():
        tokens = each["tokens"]
        assert [token["token"] for token in tokens] == each["content"].split()
        assert tokens[0]["bytes"] == list(b"You")
        assert [top["logprob"] for top in tokens[0]["top_logprobs"]] == [0, -1]
    assert usage.output_tokens == played.books[0].candidates


@both
async def test_structured_output(adapter: Adapter, played: PlayedGemini, stream: bool) -> None:
    schema = {"type": "object", "properties": {"said": {"type": "string", "maxLength": 9}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    found, _, _ = await answer(adapter, ask(stream, prompt="hello", response_format=form))
    assert found["content"] == '{"said": "hello"}'
    assert played.bodies[0]["generationConfig"]["responseJsonSchema"] == schema


@pytest.mark.parametrize("slice_bytes", [1, 7, 64])
async def test_stream_cut_anywhere(
    adapter: Adapter, played: PlayedGemini, slice_bytes: int
) -> None:
    whole, used, _ = await answer(adapter, ask(False, prompt="call weather", tools=[WEATHER]))
    played.slice_bytes = slice_bytes
    call = ask(True, prompt="call weather", tools=[WEATHER])
    assert (await answer(adapter, call))[:2] == (whole, used)


async def test_stream_whose_body_never_ends_is_complete(adapter: Adapter) -> None:
    found, usage, _ = await answer(adapter, ask(True, prompt="play:never_ends"))
    assert found["finish"] == "stop"
    assert not usage.estimated


def test_offers_say_what_a_model_can_do() -> None:
    older, newer, plain, embeds = PLUGIN.build(GeminiSettings(), toolbox()).offers()
    for offer in (older, newer, plain):
        assert offer.supported_params is not None
        assert {"temperature", "n", "tools", "structured_outputs"} <= offer.supported_params
        thinks = {"reasoning", "reasoning_effort"} <= offer.supported_params
        assert thinks is (offer is not plain)
        assert "parallel_tool_calls" not in offer.supported_params
        assert offer.input_modalities == frozenset({"text", "image", "audio", "video", "file"})
    assert embeds.supported_params == frozenset({"dimensions", "encoding_format", "input_type"})
    with pytest.raises(ValueError, match="expected one task"):
        PLUGIN.build(GeminiSettings(), toolbox("text-to-video"))
