"""The event parser against the rules of the format, however the bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.http.sse import EventParser, LineTooLong

LIMIT = 4096

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
payloads = st.one_of(
    st.binary(max_size=40).map(lambda raw: raw.translate(None, b"\r\n")),
    st.sampled_from([b'{"choices":[]}', b"[DONE]", b"", b" ", b"data: x", "é€".encode()]),
)
lines = st.one_of(
    st.tuples(st.sampled_from([b"data:", b"data: "]), payloads).map(b"".join),
    st.sampled_from([b"", b": comment", b"event: x", b"id: 4", b"data", b"retry: 10", b" data: y"]),
)
streams = st.lists(st.tuples(lines, line_ends), max_size=30)


def feed(stream: bytes, cuts: list[int]) -> list[bytes]:
    """All events of a stream that arrives in pieces."""
    parser = EventParser(LIMIT)
    events = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        events += parser.feed(stream[start:end])
    return events + parser.finish()


def expected(parts: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The rules of the format, word by word, over lines that are known."""
    events: list[bytes] = []
    data: list[bytes] = []
    for line, _ in [*parts, (b"", b"\n")]:
        if line == b"":
            if b"\n".join(data):
                events.append(b"\n".join(data))
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return events


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    """The stream of the lines. A CR before an LF of the next line's end would be one line end."""
    return b"".join(line + end for line, end in parts)


@given(streams, st.lists(st.integers(0, 400), max_size=12))
def test_any_cut_gives_the_same_events(parts: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = joined(parts)
    assert feed(stream, cuts) == feed(stream, [])
    assert feed(stream, list(range(len(stream)))) == feed(stream, [])


@given(streams)
def test_events_are_those_of_the_format(parts: list[tuple[bytes, bytes]]) -> None:
    # Only LF after a CR line end is ambiguous in bytes, so those lists are made CRLF throughout.
    ends = {end for _, end in parts}
    if b"\r" in ends and len(ends) > 1:
        parts = [(line, b"\r\n") for line, _ in parts]
    assert feed(joined(parts), []) == expected(parts)


def test_usual_stream_is_taken_apart_in_one_read() -> None:
    stream = b"".join(b"data: {%d}\n\n" % n for n in range(50)) + b"data: [DONE]\n\n"
    events = EventParser(LIMIT).feed(stream)
    assert events == [b"{%d}" % n for n in range(50)] + [b"[DONE]"]


def test_byte_order_mark_is_skipped() -> None:
    assert feed(b"\xef\xbb\xbfdata: a\n\n", [1, 2]) == [b"a"]


def test_last_event_without_its_end_is_given_when_the_stream_ends() -> None:
    parser = EventParser(LIMIT)
    assert parser.feed(b"data: a\n\ndata: b") == [b"a"]
    assert parser.finish() == [b"b"]


@pytest.mark.parametrize("stream", [b"data: " + b"x" * LIMIT, b"data: xxxxxxx\n" * LIMIT])
def test_line_or_event_over_the_limit_is_refused(stream: bytes) -> None:
    parser = EventParser(LIMIT)
    with pytest.raises(LineTooLong):
        for start in range(0, len(stream), 100):
            parser.feed(stream[start : start + 100])


def test_long_event_in_one_read_is_refused() -> None:
    with pytest.raises(LineTooLong):
        EventParser(LIMIT).feed(b"data: " + b"x" * (LIMIT + 1) + b"\n\n")


def test_long_line_in_small_pieces_takes_linear_time() -> None:
    parser = EventParser(1024 * 1024)
    for _ in range(200_000):
        parser.feed(b"abcd")
    assert parser.feed(b"\ndata: a\n\n") == [b"a"]
