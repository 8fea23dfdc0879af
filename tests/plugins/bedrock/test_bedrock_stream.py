"""A stream of frames says what the whole answer says, wherever its bytes are cut; a changed byte is
noticed."""

import itertools
import json
from struct import pack
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.bedrock import wire
from plugins.bedrock.frames import FrameParser
from plugins.bedrock.stream import FRAME_BYTES_MAX, Reading
from plugins.chat import ChoiceDelta
from plugins.contract import FailureKind
from tests.plugins.anthropic.answers import joined, said
from tests.plugins.anthropic.said import JSON, TEXT
from tests.plugins.bedrock.conftest import ask
from tests.upstreams.bedrock import answer_of, encode_frame, frame, frames_of

Json = dict[str, Any]
COUNTS = st.integers(0, 10_000)
SEALED = ["AAAA", "c2VhbGVk", "YQ=="]
PARTS = st.one_of(
    TEXT.map(lambda text: {"text": text}),
    st.tuples(TEXT, st.text(min_size=1, max_size=9)).map(
        lambda pair: {
            "reasoningContent": {"reasoningText": {"text": pair[0], "signature": pair[1]}}
        }
    ),
    st.sampled_from(SEALED).map(lambda data: {"reasoningContent": {"redactedContent": data}}),
    st.dictionaries(TEXT, JSON, max_size=3).map(
        lambda found: {"toolUse": {"toolUseId": "t1", "name": "weather", "input": found}}
    ),
)
STOPS = st.sampled_from(["end_turn", "tool_use", "max_tokens", "guardrail_intervened"])


def read(data: bytes, cuts: list[int], *, hide: bool = False) -> tuple[Reading, list[ChoiceDelta]]:
    """Read a stream in pieces that end at ``cuts``."""
    reading = Reading(None, hide_thoughts=hide)
    deltas: list[ChoiceDelta] = []
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        deltas += reading.take(data[start:end])[0]
        if reading.failure is not None:
            return reading, deltas
    if not reading.ended:
        deltas += reading.take(None)[0]
    return reading, deltas


def usage(counts: tuple[int, int, int, int]) -> Json:
    names = ("inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")
    return dict(zip(names, counts, strict=True))


@given(
    content=st.lists(PARTS, max_size=5),
    stop=STOPS,
    counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
    cuts=st.lists(st.integers(0, 6000), max_size=30),
    hide=st.booleans(),
)
def test_stream_is_the_whole_answer(
    content: list[Json], stop: str, counts: tuple[int, int, int, int], cuts: list[int], hide: bool
) -> None:
    message = answer_of(content, usage((counts[0] + 1, *counts[1:])), stop)
    decoded = wire.reply_decoder.decode(json.dumps(message))
    reading, deltas = read(b"".join(frames_of(message)), cuts, hide=hide)
    assert reading.failure is None
    assert reading.ended
    assert joined(deltas) == said(wire.choice_of(decoded, hide_thoughts=hide))
    assert reading.usage(ask().chat) == wire.usage_of(decoded.usage)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(at: int, bit: int) -> None:
    message = answer_of([{"text": "one two three"}], usage((7, 9, 0, 0)), "end_turn")
    data = bytearray(b"".join(frames_of(message)))
    data[at % len(data)] ^= 1 << bit
    reading, deltas = read(bytes(data), [])
    assert reading.failure is not None
    assert reading.failure.kind is FailureKind.PROTOCOL
    assert "one two three".startswith(joined(deltas)["content"])


@given(at=st.integers(0, 10_000))
def test_stream_that_is_cut_short_is_never_whole(at: int) -> None:
    message = answer_of([{"text": "one two three"}], usage((7, 9, 0, 0)), "end_turn")
    frames = frames_of(message)
    data = b"".join(frames)
    reading, _ = read(data[: at % len(data)], [])
    # Usage may be missing, and is estimated then; the reason for the end may not.
    has_end = at % len(data) >= len(data) - len(frames[-1])
    assert (reading.failure is None) == has_end
    assert reading.usage(ask().chat).estimated


@given(data=st.binary(max_size=200))
def test_garbage_never_does_more_than_fail(data: bytes) -> None:
    reading, deltas = read(data, [])
    assert reading.failure is not None
    assert deltas == []


@pytest.mark.parametrize(
    ("size", "headers"), [(1 << 31, 0), (FRAME_BYTES_MAX + 1, 0), (20, 200_000), (16, 8), (4, 0)]
)
def test_lengths_that_cannot_be_are_refused_before_their_bytes_come(
    size: int, headers: int
) -> None:
    prelude = pack("!II", size, headers)
    parser = FrameParser(FRAME_BYTES_MAX)
    assert parser.feed(prelude + pack("!I", crc32(prelude))) == []
    assert parser.bad is not None


def test_headers_of_every_type_are_passed_over() -> None:
    values = [b"\x00", b"\x01", b"\x02x", b"\x03xx", b"\x04xxxx", b"\x05" + b"x" * 8]
    values += [b"\x06\x00\x02ab", b"\x08" + b"x" * 8, b"\x09" + b"x" * 16, b"\x07\x00\x01z"]
    head = b"".join(b"\x01" + bytes([97 + n]) + value for n, value in enumerate(values))
    prelude = pack("!II", 16 + len(head), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head
    parser = FrameParser(FRAME_BYTES_MAX)
    found = parser.feed(body + pack("!I", crc32(body)))
    assert [each.headers for each in found] == [{"j": "z"}]


@pytest.mark.parametrize("head", [b"\x05ab", b"\x01a\x0b", b"\x01a\x07\x00\x09x", b"\x01\xff\x00"])
def test_headers_that_cannot_be_read_are_a_bad_frame(head: bytes) -> None:
    prelude = pack("!II", 16 + len(head), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head
    parser = FrameParser(FRAME_BYTES_MAX)
    assert parser.feed(body + pack("!I", crc32(body))) == []
    assert parser.bad is not None


def test_pieces_of_a_sealed_thought_are_joined_as_bytes() -> None:
    start = frame("event", "messageStart", {"role": "assistant"})
    parts = [
        {"delta": {"reasoningContent": {"redactedContent": data}}, "contentBlockIndex": 0}
        for data in ("YQ==", "Yg==")
    ]
    frames = [start, *(frame("event", "contentBlockDelta", part) for part in parts)]
    frames.append(frame("event", "contentBlockStop", {"contentBlockIndex": 0}))
    frames.append(frame("event", "messageStop", {"stopReason": "end_turn"}))
    reading, deltas = read(b"".join(frames), [])
    assert reading.failure is None
    assert joined(deltas)["details"][0]["data"] == "YWI="


def test_frames_of_unknown_kinds_end_the_stream() -> None:
    reading, _ = read(encode_frame({":message-type": "surprise"}, b"{}"), [])
    assert reading.failure is not None
