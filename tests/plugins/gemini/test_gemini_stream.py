"""A stream says what the whole answer says, wherever its bytes are cut."""

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from plugins.chat import ChoiceDelta
from plugins.contract import FailureKind, Usage
from plugins.gemini import answer, wire
from plugins.gemini.reading import Reading
from tests.plugins.gemini.answers import joined, said
from tests.plugins.gemini.conftest import ask
from tests.upstreams.gemini import events_of, frames_of

Json = dict[str, Any]
TEXT = st.text(max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
SIGNED = st.fixed_dictionaries({}, optional={"thoughtSignature": st.text(min_size=1, max_size=9)})
PARTS = st.one_of(
    st.tuples(TEXT, SIGNED).map(lambda pair: {"text": pair[0], **pair[1]}),
    st.tuples(TEXT, SIGNED).map(lambda pair: {"text": pair[0], "thought": True, **pair[1]}),
    st.tuples(st.dictionaries(TEXT, JSON, max_size=3), SIGNED).map(
        lambda pair: {"functionCall": {"name": "weather", "args": pair[0]}, **pair[1]}
    ),
    st.tuples(st.text(max_size=5), SIGNED).map(
        lambda pair: {"functionCall": {"name": "noop", "id": pair[0]}, **pair[1]}
    ),
    st.just({"executableCode": {"code": "1"}}),
)
REASONS = st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", "OTHER", "SOMETHING_NEW"])
COUNTS = st.integers(0, 10_000)


def answer_of(candidates: list[Json], usage: Json) -> Json:
    return {"candidates": candidates, "usageMetadata": usage, "responseId": "answer-1"}


def read(data: bytes, cuts: list[int], wanted: int = 1) -> tuple[Reading, list[ChoiceDelta]]:
    """Read a stream in pieces that end at ``cuts``."""
    reading = Reading(None, "seed", wanted)
    deltas: list[ChoiceDelta] = []
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        deltas += reading.take(data[start:end])[0]
    if reading.failure is None:
        deltas += reading.take(None)[0]
    return reading, deltas


@given(
    contents=st.lists(st.lists(PARTS, max_size=5), min_size=1, max_size=3),
    reason=REASONS,
    counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
    cuts=st.lists(st.integers(0, 6000), max_size=30),
)
def test_stream_is_the_whole_answer(
    contents: list[list[Json]],
    reason: str,
    counts: tuple[int, int, int, int],
    cuts: list[int],
) -> None:
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    usage: Json = dict(zip(names, counts, strict=False))
    usage["cachedContentTokenCount"] = counts[3]
    candidates = [
        {"content": {"parts": parts, "role": "model"}, "finishReason": reason, "index": index}
        for index, parts in enumerate(contents)
    ]
    complete = answer_of(candidates, usage)
    alone = Reading(None, "seed", len(contents))
    choices = answer.whole(alone.whole(json.dumps(complete).encode()))
    reading, deltas = read(frames_of(events_of(complete)), cuts, len(contents))
    assert reading.failure is None
    assert alone.failure is None
    assert reading.finished
    assert joined(deltas) == {choice.index: said(choice) for choice in choices}
    chat = ask().chat
    assert reading.usage(chat) == alone.usage(chat)
    begun = {part.index: part.delta.role for part in reversed(deltas)}
    assert set(begun.values()) == {"assistant"}
    ids = [call["id"] for choice in choices for call in choice.message.tool_calls or []]
    assert all(0 < len(each) <= wire.ID_LENGTH_MAX for each in ids)


@given(
    prompt=COUNTS, cached=COUNTS, heard=COUNTS, made=COUNTS, thought=COUNTS, inclusive=st.booleans()
)
def test_buckets_never_overlap(
    prompt: int, cached: int, heard: int, made: int, thought: int, inclusive: bool
) -> None:
    usage: Json = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached,
        "candidatesTokenCount": made,
        "thoughtsTokenCount": thought,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": heard}],
        "totalTokenCount": prompt + made + (0 if inclusive else thought),
    }
    found = wire.buckets_of(wire.usage_of(Raw(json.dumps(usage).encode())))
    if prompt == 0:
        assert found is None
        return
    assert found is not None
    read_tokens = (found.input_tokens, found.cache_read_tokens, found.audio_input_tokens)
    assert min(*read_tokens, found.output_tokens, found.reasoning_tokens) >= 0
    assert sum(read_tokens) == prompt
    total = made if inclusive and thought else made + thought
    assert found.output_tokens + found.reasoning_tokens == total


@given(at=st.integers(0, 2000))
def test_stream_that_is_cut_short_is_never_whole(at: int) -> None:
    parts = [{"text": "one two three four five"}]
    candidate = {"content": {"parts": parts}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 9}
    data = frames_of(events_of(answer_of([candidate], usage)))
    cut = data[: min(at, len(data))]
    reading, deltas = read(cut, [])
    if len(cut) < len(data) - 4:  # the last blank line may be missing
        assert reading.failure is not None
        assert all(part.finish_reason is None for part in deltas)
        if deltas:
            used = reading.usage(ask().chat)
            assert (used.input_tokens, used.estimated) == (7, True)


def test_nonsensical_usage_costs_the_numbers_only() -> None:
    for bad in (-1, 10**12, "many", None, 1.5):
        usage = {"promptTokenCount": bad, "candidatesTokenCount": bad}
        candidate = {"content": {"parts": [{"text": "four"}]}, "finishReason": "STOP"}
        reading, deltas = read(
            frames_of(events_of(answer_of([{**candidate, "index": 0}], usage))), []
        )
        assert reading.failure is None
        assert joined(deltas)[0]["content"] == "four"
        estimate = reading.usage(ask(prompt="12345678").chat)
        assert estimate == Usage(input_tokens=2, output_tokens=1, estimated=True)


def test_answers_beyond_all_bounds_are_refused() -> None:
    candidate = {"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP", "index": 10**6}
    reading = Reading(None, "seed")
    assert reading.whole(json.dumps(answer_of([candidate], {})).encode()) == []
    assert reading.failure is not None
    assert reading.failure.kind is FailureKind.PROTOCOL
    long = {"functionCall": {"name": "n" * 1000, "id": "i" * 1000}, "thoughtSignature": "s"}
    candidate = {"content": {"parts": [long]}, "finishReason": "STOP", "index": 0}
    choices = answer.whole(
        Reading(None, "x").whole(json.dumps(answer_of([candidate], {})).encode())
    )
    call = (choices[0].message.tool_calls or [])[0]
    assert len(call["function"]["name"]) == wire.ID_LENGTH_MAX
    assert call["id"].startswith("call_")
    assert choices[0].finish_reason == "tool_calls"
