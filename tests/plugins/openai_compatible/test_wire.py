"""What is sent, and how usage becomes buckets that do not overlap."""

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from plugins.chat import ChatRequest, Delta, Message, StreamOptions
from plugins.contract import InferenceCall, Usage
from plugins.openai_compatible import wire
from plugins.openai_compatible.sending import encode_request
from tests.plugins.conftest import make_call


def sent(call: InferenceCall) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(encode_request(call))
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
            Usage(input_tokens=10, reasoning_tokens=5),
        ),
        (
            {"prompt_tokens_details": None, "completion_tokens_details": {"audio_tokens": 1}},
            Usage(input_tokens=10, output_tokens=4, audio_output_tokens=1),
        ),
        (
            {
                "prompt_tokens_details": {
                    "cached_tokens": 4,
                    "cache_write_tokens": 3,
                    "audio_tokens": 2,
                }
            },
            Usage(
                input_tokens=1,
                cache_read_tokens=4,
                cache_write_tokens=3,
                audio_input_tokens=2,
                output_tokens=5,
            ),
        ),
        (
            {"prompt_tokens_details": {"cached_tokens": 11, "audio_tokens": 2}},
            Usage(cache_read_tokens=10, output_tokens=5),
        ),
        ({"prompt_tokens_details": {"cached_tokens": -1}}, None),
        ({"cost": 0.00012}, Usage(input_tokens=10, output_tokens=5, cost_nano_usd=120_000)),
        ({"cost": -1}, Usage(input_tokens=10, output_tokens=5)),
        ({"cost": {"total": 1}}, Usage(input_tokens=10, output_tokens=5)),
        ({"completion_tokens": -1}, None),
        ({"completion_tokens": 10**12}, None),
        ({"completion_tokens": 10**30}, None),
        ({"completion_tokens": "5"}, Usage(input_tokens=10, output_tokens=5)),
        ({"completion_tokens": "five"}, None),
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


details = st.none() | counts


@given(counts, counts, st.tuples(details, details, details), st.tuples(details, details))
def test_buckets_add_up_to_what_was_reported(
    prompt: int,
    completion: int,
    heard: tuple[int | None, ...],
    made: tuple[int | None, ...],
) -> None:
    """Each token is in one bucket, however the details lie; a true detail is kept as it is."""
    in_names = ("cached_tokens", "cache_write_tokens", "audio_tokens")
    out_names = ("reasoning_tokens", "audio_tokens")
    raw = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": dict(zip(in_names, heard, strict=True)),
        "completion_tokens_details": dict(zip(out_names, made, strict=True)),
    }
    usage = wire.usage_of(Raw(json.dumps(raw).encode()))
    if prompt + completion == 0:
        assert usage is None
        return
    assert usage is not None
    parts_in = [usage.cache_read_tokens, usage.cache_write_tokens, usage.audio_input_tokens]
    parts_out = [usage.reasoning_tokens, usage.audio_output_tokens]
    assert usage.input_tokens + sum(parts_in) == prompt
    assert usage.output_tokens + sum(parts_out) == completion
    assert min(usage.input_tokens, usage.output_tokens, *parts_in, *parts_out) >= 0
    for whole, told, found in ((prompt, heard, parts_in), (completion, made, parts_out)):
        if sum(part or 0 for part in told) <= whole:
            assert found == [part or 0 for part in told]


def cost_of(text: str) -> int | None:
    raw = f'{{"prompt_tokens": 1, "completion_tokens": 1, "cost": {text}}}'
    usage = wire.usage_of(Raw(raw.encode()))
    assert usage is not None
    return usage.cost_nano_usd


@given(st.decimals(0, 1000, allow_nan=False, allow_infinity=False))
def test_the_bill_is_read_exactly_and_rounded_up(usd: Decimal) -> None:
    text = str(usd).replace("-", "", 1) if usd == 0 else str(usd)
    exact = Fraction(text) * 10**9
    found = cost_of(text)
    if len(text) > 64:
        assert found is None
        return
    assert found is not None
    assert 0 <= found - exact < 1


@given(st.floats(0, 1000))
def test_a_bill_written_by_a_float_s_shortest_text_is_that_text(usd: float) -> None:
    assert cost_of(json.dumps(usd)) == -(-Fraction(repr(usd)) * 10**9 // 1)


@pytest.mark.parametrize(
    ("text", "nano_usd"),
    [
        ("0", 0),
        ("0.1", 100_000_000),
        ("0.0000000001", 1),
        ("1e-400000", 1),
        ('"0.25"', 250_000_000),
        ("1000", 10**12),
        ("1000.000000001", None),
        ("1e400", None),
        ("1e99999999999999999999", None),
        ("1" * 5000, None),
        ("0." + "1" * 5000, None),
        ("-0.1", None),
        ('"NaN"', None),
        ('"Infinity"', None),
        ('"free"', None),
        ("null", None),
        ("true", None),
        ("[]", None),
    ],
)
def test_bills_that_cannot_be_true_are_none(text: str, nano_usd: int | None) -> None:
    assert cost_of(text) == nano_usd


@pytest.mark.parametrize(
    ("told", "compute_ns", "estimated"),
    [
        ("2.5", 2_500_000_000, False),
        ("0.0000000001", 1, False),
        ("0", 0, False),
        ("12", 12 * 10**9, False),
        ("86401", 10 * 10**9, True),
        (None, 10 * 10**9, True),
        ("-1", 10 * 10**9, True),
        ("nan", 10 * 10**9, True),
        ("1e999999999999", 10 * 10**9, True),
        ("2.5 s", 10 * 10**9, True),
        ("9" * 100, 10 * 10**9, True),
    ],
)
def test_compute_is_what_the_provider_says_or_else_the_time_that_passed(
    told: str | None, compute_ns: int, estimated: bool
) -> None:
    usage = Usage(input_tokens=1, output_tokens=2)
    assert wire.with_compute(usage, told, 10 * 10**9) == Usage(
        input_tokens=1, output_tokens=2, compute_ns=compute_ns, estimated=estimated
    )


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
