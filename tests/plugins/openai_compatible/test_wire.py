"""What is sent, and how usage becomes buckets that do not overlap."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from plugins.chat import ChatRequest, Delta, Message, StreamOptions
from plugins.contract import InferenceCall, Usage
from plugins.openai_compatible import wire
from tests.plugins.conftest import make_call


def sent(call: InferenceCall) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(wire.encode_request(call))
    return decoded


def test_request_carries_the_upstream_name_first_and_the_client_s_is_untouched() -> None:
    call = make_call(temperature=0.5, max_completion_tokens=7)
    body = sent(call)
    assert next(iter(body)) == "model"
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "one two three four"}],
        "max_completion_tokens": 7,
        "stream": False,
        "temperature": 0.5,
    }
    assert call.request.model == "acme/tiny"


def test_stream_asks_for_usage_and_keeps_the_client_s_options() -> None:
    options = StreamOptions(include_usage=False, include_obfuscation=False)
    body = sent(make_call(True, stream_options=options))
    assert body["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert options.include_usage is False


@pytest.mark.parametrize("options", [{}, {"stream_options": None}])
def test_stream_asks_for_usage_unprompted(options: dict[str, Any]) -> None:
    assert sent(make_call(True, **options))["stream_options"] == {"include_usage": True}


def test_stream_options_go_only_with_a_stream() -> None:
    assert "stream_options" not in sent(make_call(False, stream_options=StreamOptions()))


def test_null_parameters_stay_null() -> None:
    assert sent(make_call(stop=None))["stop"] is None


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        ({}, Usage(input_tokens=10, output_tokens=5)),
        (
            {"prompt_tokens_details": {"cached_tokens": 4}},
            Usage(input_tokens=6, cache_read_tokens=4, output_tokens=5),
        ),
        (
            {"completion_tokens_details": {"reasoning_tokens": 3}},
            Usage(input_tokens=10, output_tokens=2, reasoning_tokens=3),
        ),
        (
            {"completion_tokens_details": {"reasoning_tokens": 6}},
            Usage(input_tokens=10, output_tokens=5),
        ),
        (
            {"prompt_tokens_details": None, "completion_tokens_details": {"audio_tokens": 1}},
            Usage(input_tokens=10, output_tokens=5),
        ),
        ({"prompt_tokens_details": {"cached_tokens": 11}}, None),
        ({"completion_tokens": -1}, None),
        ({"completion_tokens": 10**12}, None),
        ({"completion_tokens": 10**30}, None),
        ({"completion_tokens": "5"}, None),
        ({"completion_tokens": 5.5}, None),
        ({"completion_tokens": None}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
    ],
)
def test_usage_buckets(raw: dict[str, Any], usage: Usage | None) -> None:
    whole = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15} | raw
    assert wire.usage_of(Raw(json.dumps(whole).encode())) == usage


@pytest.mark.parametrize("raw", [b"null", b"[]", b"7", b'"x"', b"{}", b"[" * 5000])
def test_usage_that_is_no_usage(raw: bytes) -> None:
    assert wire.usage_of(Raw(raw)) is None


counts = st.integers(0, 10_000_000)


@given(counts, counts, counts, counts)
def test_buckets_add_up_to_what_was_reported(
    prompt: int, completion: int, cached: int, reasoning: int
) -> None:
    raw = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    usage = wire.usage_of(Raw(json.dumps(raw).encode()))
    if cached > prompt or prompt + completion == 0:
        assert usage is None
        return
    assert usage is not None
    assert usage.input_tokens + usage.cache_read_tokens == prompt
    assert usage.output_tokens + usage.reasoning_tokens == completion
    assert min(usage.input_tokens, usage.output_tokens) >= 0


def test_estimate_counts_bytes_of_what_passed() -> None:
    delivered = wire.Delivered()
    delivered.add(Delta(content="abcde"))
    delivered.add(Delta(content="€"))
    delivered.add(Delta(reasoning_content="hmmmm"))
    request = ChatRequest(
        model="m",
        messages=[
            Message(role="system", content="four"),
            Message(
                role="user", content=[{"type": "text", "text": "five5"}, {"type": "image_url"}]
            ),
            Message(role="assistant", content=None),
        ],
    )
    assert delivered.estimate(request) == Usage(
        input_tokens=3, output_tokens=2, reasoning_tokens=2, estimated=True
    )


def test_estimate_counts_tools_on_both_sides() -> None:
    delivered = wire.Delivered()
    call = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    delivered.add(Delta(tool_calls=[call]))
    tools = [{"type": "function", "function": {"name": "f"}}]
    request = ChatRequest(model="m", messages=[Message(role="user", content="")], tools=tools)
    usage = delivered.estimate(request)
    assert usage.output_tokens > 5
    assert usage.input_tokens > 5


def test_empty_prompt_is_estimated_as_one_token() -> None:
    request = ChatRequest(model="m", messages=[Message(role="user", content="")])
    assert wire.Delivered().estimate(request).input_tokens == 1
