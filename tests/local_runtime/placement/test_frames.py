"""Frames: what goes in comes out, and nothing else is taken for one."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from local_runtime.engines.contract import (
    EngineEvent,
    EngineSpec,
    Failed,
    Piece,
    TokenLogprob,
    TopToken,
)
from local_runtime.placement import frames
from local_runtime.placement.frames import Load, LoadFailed, Stepped, Submit
from plugins.contract import FailureKind, Usage
from tests.local_runtime.calls import engine_request

USAGE = Usage(input_tokens=3, output_tokens=2, compute_ns=2**62)
TOP = TopToken("é", [195, 169], -0.5)
EVENTS: list[EngineEvent] = [
    Piece("r", USAGE, 1, "é\0🌱", [TokenLogprob("é", [195, 169], -0.5, [TOP])], "stop"),
    Failed("r", USAGE, FailureKind.BAD_REQUEST, "no", param="n"),
]


def test_what_goes_in_comes_out() -> None:
    request = engine_request("hi", stop=["a"], logit_bias={"1": 2.5}, compute_ns_max=7)
    for sent in (Submit(request), Load(EngineSpec(engine="fake", options={"a": "b"}))):
        assert frames.to_engine_decoder.decode(frames.encode(sent)[4:]) == sent
    stepped = Stepped(EVENTS, 2**62, 1)
    assert frames.from_engine_decoder.decode(frames.encode(stepped)[4:]) == stepped
    got = frames.to_engine_decoder.decode(frames.encode(Submit(request))[4:])
    assert isinstance(got, Submit) and got.request.chat is not None
    assert got.request.chat.seed is UNSET


def test_through_a_pipe() -> None:
    out, into = os.pipe()
    write, read = frames.writer(into), frames.reader(out)
    sent = [LoadFailed("x" * size) for size in (0, 10, 200_000)]
    sender = threading.Thread(target=lambda: [write(message) for message in sent])
    sender.start()
    bodies = [read() for _ in sent]
    sender.join()
    os.close(into)
    assert [frames.from_engine_decoder.decode(body) for body in bodies if body] == sent
    assert read() is None
    os.close(out)


def test_half_a_frame_is_the_end() -> None:
    out, into = os.pipe()
    os.write(into, frames.encode(LoadFailed("whole"))[:-1])
    os.close(into)
    assert frames.reader(out)() is None
    os.close(out)


def test_a_length_that_cannot_be() -> None:
    with pytest.raises(frames.BrokenPipe):
        frames.body_length(b"\xff\xff\xff\xff")


def test_a_reader_that_is_gone() -> None:
    out, into = os.pipe()
    os.close(out)
    with pytest.raises(frames.BrokenPipe):
        frames.writer(into)(LoadFailed("x"))
    os.close(into)


@given(
    sizes=st.lists(st.integers(min_value=0, max_value=300), max_size=8),
    cuts=st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=40),
)
def test_frames_are_found_however_the_stream_is_cut(sizes: list[int], cuts: list[int]) -> None:
    sent = [LoadFailed("x" * size) for size in sizes]
    stream = b"".join(map(frames.encode, sent))
    splitter = frames.Splitter()
    bodies = []
    for cut in [*cuts, len(stream)]:
        bodies += splitter.feed(stream[:cut])
        stream = stream[cut:]
    assert [frames.from_engine_decoder.decode(body) for body in bodies] == sent
    assert splitter.feed(b"") == []


def test_a_length_that_cannot_be_is_found_out_before_its_bytes_have_come() -> None:
    with pytest.raises(frames.BrokenPipe):
        frames.Splitter().feed(frames.LENGTH.pack(frames.FRAME_BYTES_MAX + 1))
