"""A stream says what the whole answer says, wherever its bytes are cut."""

import itertools
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from plugins.anthropic import wire
from plugins.anthropic.stream import Reading
from plugins.chat import ChoiceDelta
from plugins.contract import Usage
from tests.plugins.anthropic.answers import joined, said
from tests.plugins.anthropic.conftest import ask
from tests.plugins.anthropic.said import JSON, TEXT
from tests.upstreams.anthropic import events_of, frames_of, message_of

Json = dict[str, Any]
BLOCKS = st.one_of(
    TEXT.map(lambda text: {"type": "text", "text": text}),
    st.tuples(TEXT, st.text(min_size=1, max_size=9)).map(
        lambda pair: {"type": "thinking", "thinking": pair[0], "signature": pair[1]}
    ),
    st.text(min_size=1, max_size=9).map(lambda data: {"type": "redacted_thinking", "data": data}),
    st.dictionaries(TEXT, JSON, max_size=3).map(
        lambda found: {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": found}
    ),
    st.just({"type": "server_tool_use", "id": "srv", "name": "web", "input": {}}),
)
STOPS = st.sampled_from(["end_turn", "tool_use", "max_tokens", "refusal", "stop_sequence"])
COUNTS = st.integers(0, 10_000)


def read(data: bytes, cuts: list[int], *, hide: bool = False) -> tuple[Reading, list[ChoiceDelta]]:
    """Read a stream in pieces that end at ``cuts``."""
    reading = Reading(None, hide_thoughts=hide)
    deltas: list[ChoiceDelta] = []
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        deltas += reading.take(data[start:end])[0]
    if not reading.ended:
        deltas += reading.take(None)[0]
    return reading, deltas


@given(
    content=st.lists(BLOCKS, max_size=5),
    stop=STOPS,
    counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
    cuts=st.lists(st.integers(0, 6000), max_size=30),
    hide=st.booleans(),
)
def test_stream_is_the_whole_answer(
    content: list[Json], stop: str, counts: tuple[int, int, int, int], cuts: list[int], hide: bool
) -> None:
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    usage: Json = dict(zip(names, counts, strict=False)) | {"output_tokens": counts[3] + 1}
    message = message_of(content, usage, stop, "msg_1")
    decoded = wire.message_decoder.decode(json.dumps(message))
    reading, deltas = read(frames_of(events_of(message)), cuts, hide=hide)
    assert reading.failure is None
    assert reading.ended
    assert joined(deltas) == said(wire.choice_of(decoded, hide_thoughts=hide))
    used = reading.usage(ask().chat)
    assert used == wire.buckets_of(wire.usage_of(decoded.usage))
    assert deltas[0].delta.role == "assistant"
    assert [part.finish_reason for part in deltas[:-1]] == [None] * (len(deltas) - 1)


@given(at=st.integers(0, 2000))
def test_stream_that_is_cut_short_is_never_whole(at: int) -> None:
    content = [{"type": "text", "text": "one two three four five"}]
    usage = {"input_tokens": 7, "output_tokens": 9}
    data = frames_of(events_of(message_of(content, usage, "end_turn", "msg_1")))
    reading, deltas = read(data[: min(at, len(data))], [])
    complete = b'"stop_reason": "end_turn"' in data[:at]
    if not complete:
        assert reading.failure is not None
        assert joined(deltas)["finish"] is None
    if reading.started and not complete:
        assert reading.usage(ask().chat).estimated
        assert reading.usage(ask().chat).input_tokens == 7


def test_nonsensical_usage_costs_the_numbers_only() -> None:
    for bad in (-1, 10**12, "many", None, 1.5):
        message = message_of(
            [{"type": "text", "text": "four"}],
            {"input_tokens": bad, "output_tokens": bad},
            "end_turn",
            "msg_1",
        )
        reading, deltas = read(frames_of(events_of(message)), [])
        assert reading.failure is None
        assert joined(deltas)["content"] == "four"
        estimate = reading.usage(ask(prompt="12345678").chat)
        assert estimate == Usage(input_tokens=2, output_tokens=1, estimated=True)


def test_arguments_may_come_whole_and_ids_are_bounded() -> None:
    events: list[Json] = events_of(
        message_of([], {"input_tokens": 1, "output_tokens": 1}, "tool_use", "m" * 1000)
    )
    block = {"type": "tool_use", "id": "i" * 1000, "name": "weather", "input": {"city": "Bern"}}
    events[1:1] = [
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
    ]
    reading, deltas = read(frames_of(events), [])
    call = joined(deltas)["calls"][0]
    assert call["arguments"] == {"city": "Bern"}
    assert len(call["id"]) == len(reading.upstream_id) == wire.ID_LENGTH_MAX
    assert msgspec.json.encode(deltas)
