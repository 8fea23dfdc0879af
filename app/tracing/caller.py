"""Whose trace a request belongs to: ``traceparent`` and ``tracestate`` of W3C Trace Context.

https://www.w3.org/TR/trace-context/: what is malformed is as if it were not there. It never makes a
request fail, and is not logged: it is the caller's text.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
STATE_LENGTH_MAX = 512
STATE_MEMBERS_MAX = 32
_LENGTH_MAX = 256
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER = re.compile(rf"({_KEY})=({_VALUE})")
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_UNKNOWN_VERSION = b"ff"
_FIRST_VERSION = b"00"
_SAMPLED = 1


class CallersTrace(NamedTuple):
    """The trace that the caller is in, and its span. ``sampled``: the caller records it. ``state``
    is what tracing systems on the way wrote down, by their keys."""

    trace_id: int
    span_id: int
    sampled: bool
    state: tuple[tuple[str, str], ...] = ()


def callers_trace(headers: Iterable[tuple[bytes, bytes]]) -> CallersTrace | None:
    """What the headers say, names in lower case; None without a good ``traceparent``."""
    parents, states = [], []
    for name, value in headers:
        if name == TRACEPARENT:
            parents.append(value)
        elif name == TRACESTATE:
            states.append(value)
    if len(parents) != 1 or len(parents[0]) > _LENGTH_MAX:
        return None
    found = _PARENT.fullmatch(parents[0].strip(b" \t"))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == _UNKNOWN_VERSION or (version == _FIRST_VERSION and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return CallersTrace(
        int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED), _state(states)
    )


def _state(values: list[bytes]) -> tuple[tuple[str, str], ...]:
    """The members in order; none at all where one of them is wrong or they are too many."""
    text = b",".join(values).decode("latin-1")
    if not text or len(text) > STATE_LENGTH_MAX:
        return ()
    members: dict[str, str] = {}
    for part in text.split(","):
        member = part.strip(" \t")
        if not member:
            continue
        found = _MEMBER.fullmatch(member)
        if found is None or found[1] in members:
            return ()
        members[found[1]] = found[2]
    return tuple(members.items()) if len(members) <= STATE_MEMBERS_MAX else ()
