"""``traceparent`` and ``tracestate``: what is right is read, and nothing else does any harm."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from app.tracing.caller import CallersTrace, callers_trace

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01".encode()
HEX = st.text("0123456789abcdef", min_size=1, max_size=32)


def read(parent: bytes, *states: bytes) -> CallersTrace | None:
    headers = [(b"host", b"x"), (b"traceparent", parent)]
    return callers_trace([*headers, *((b"tracestate", each) for each in states)])


def test_a_good_one_is_read() -> None:
    found = read(GOOD, b"congo=t61rcWkgMzE , rojo=00f067aa0ba902b7", b"a@b=1")
    assert found == CallersTrace(
        int(TRACE, 16),
        int(SPAN, 16),
        True,
        (("congo", "t61rcWkgMzE"), ("rojo", "00f067aa0ba902b7"), ("a@b", "1")),
    )


@pytest.mark.parametrize(
    ("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)]
)
def test_the_last_flag_says_whether_it_is_recorded(flags: str, sampled: bool) -> None:
    found = read(f"00-{TRACE}-{SPAN}-{flags}".encode())
    assert found is not None
    assert found.sampled is sampled


def test_a_later_version_may_go_on() -> None:
    assert read(f"cc-{TRACE}-{SPAN}-01-what-comes-then".encode()) == read(GOOD)
    assert read(f"cc-{TRACE}-{SPAN}-01.what".encode()) is None


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00",
        GOOD.upper(),
        GOOD + b"-more",
        GOOD + b"\n",
        b"ff" + GOOD[2:],
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE}-{SPAN}-1".encode(),
        f"00-{TRACE[:-1]}-{SPAN}-01".encode(),
        b"cc" + GOOD[2:] + b"-" + b"x" * 500,
        "00-\u0660".encode(),
    ],
)
def test_what_is_malformed_is_not_there(parent: bytes) -> None:
    assert read(parent, b"a=b") is None


def test_of_two_neither_is_believed() -> None:
    assert callers_trace([(b"traceparent", GOOD), (b"traceparent", GOOD)]) is None
    assert callers_trace([(b"tracestate", b"a=b")]) is None


@pytest.mark.parametrize(
    "state",
    [
        b"a",
        b"a=",
        b"=b",
        b"a=b,a=c",
        b"A=b",
        b"a=b=c",
        b"a=\xe9",
        b"a=b\x00",
        b"a=" + b"x" * 511,
        b",".join(b"k%d=v" % n for n in range(33)),
    ],
)
def test_a_state_that_is_malformed_takes_nothing_else_with_it(state: bytes) -> None:
    found = read(GOOD, state)
    assert found is not None
    assert found.state == ()


@given(st.binary(max_size=600), st.lists(st.binary(max_size=600), max_size=4))
@example(GOOD, [b"a=b"])
@example(GOOD, [b"a=b" * 200])
def test_whatever_comes_is_read_or_left(parent: bytes, states: list[bytes]) -> None:
    found = read(parent, *states)
    if found is not None:
        assert 0 < found.trace_id < 1 << 128
        assert 0 < found.span_id < 1 << 64


@given(HEX, HEX, HEX, HEX)
def test_of_what_is_nearly_one_only_what_is_one_is_read(a: str, b: str, c: str, d: str) -> None:
    text = f"{a}-{b}-{c}-{d}"
    found = read(text.encode())
    whole = re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", text)
    assert (found is not None) == (whole is not None and int(b, 16) > 0 and int(c, 16) > 0)


@given(st.lists(st.text("abz09_-*/@=, \t~A\x7f", max_size=40), max_size=8))
def test_a_state_that_is_kept_is_one_by_the_library_too(parts: list[str]) -> None:
    """Which says in the log what it does not take, so it must never have to."""
    found = read(GOOD, ",".join(parts).encode())
    assert found is not None
    assert tuple(TraceState(list(found.state)).items()) == found.state
