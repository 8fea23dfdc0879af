"""The requests of probes, and what answers show; whatever an adapter hands over."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.routing.probe_checks import (
    JSON_OBJECT,
    JSON_SCHEMA,
    STREAM,
    TOOLS,
    Check,
    Heard,
    checks_of,
    ruled_out,
    verdict,
)
from plugins.chat import PARAMS, AssistantMessage, ChatRequest, Choice, ChoiceDelta, Delta
from plugins.contract import Chunk, Completion, Event, Offer, Price, Usage, UsageReport

OFFER = Offer(model="acme/tiny", provider="acme", upstream_id="m", price=Price(free=True))
CHECKS = {check.name: check for check in checks_of(OFFER)}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def said(check: Check, *events: Event) -> bool | None:
    heard = Heard(0)
    for n, event in enumerate(events):
        heard.take(event, n + 1)
    return verdict(check, heard)[0]


def delta(finish: str | None = None, **fields: Any) -> Chunk:
    return Chunk([ChoiceDelta(index=0, delta=Delta(**fields), finish_reason=finish)])


def whole(content: str | None, finish: str = "stop", **fields: Any) -> Completion:
    message = AssistantMessage(role="assistant", content=content, **fields)
    return Completion([Choice(index=0, message=message, finish_reason=finish)])


def call(arguments: str, name: str = "get_weather") -> list[dict[str, Any]]:
    return [{"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}]


@given(st.frozensets(st.sampled_from(PARAMS)))
def test_only_what_the_offer_honours_is_sent(honoured: frozenset[str]) -> None:
    offer = msgspec.structs.replace(OFFER, supported_params=honoured)
    checks = checks_of(offer)
    assert checks[0].name == STREAM
    for check in checks:
        assert isinstance(check.request, ChatRequest)
        assert set(check.request.given_params()) <= honoured
    names = {check.name for check in checks} | set(ruled_out(offer))
    assert names == {STREAM, TOOLS, JSON_SCHEMA, JSON_OBJECT}


@given(st.text(max_size=20), st.integers(1, 5))
def test_a_tool_call_may_come_in_pieces(city: str, size: int) -> None:
    arguments = msgspec.json.encode({"city": city}).decode()
    pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
    first = {"index": 0, "id": "c", "function": {"name": "get_weather", "arguments": ""}}
    chunks = [delta(tool_calls=[first])]
    chunks += [
        delta(tool_calls=[{"index": 0, "function": {"arguments": piece}}]) for piece in pieces
    ]
    assert said(CHECKS[TOOLS], *chunks) is True
    assert said(CHECKS[TOOLS], *chunks[:-1]) is False


@pytest.mark.parametrize(
    ("check", "answer", "expected"),
    [
        (TOOLS, whole(None, tool_calls=call('{"city":"Paris"}')), True),
        (TOOLS, whole(None, tool_calls=call('{"city":"Par')), False),
        (TOOLS, whole(None, tool_calls=call("{}")), False),
        (TOOLS, whole(None, tool_calls=call('{"city":"Paris"}', "other")), False),
        (TOOLS, whole("sunny"), False),
        (TOOLS, whole("let me think", "length"), None),
        (JSON_SCHEMA, whole('{"city":"Paris"}'), True),
        (JSON_SCHEMA, whole(' {"city": "Paris"}\n'), True),
        (JSON_SCHEMA, whole('```json\n{"city":"Paris"}\n```'), False),
        (JSON_SCHEMA, whole('{"city":1}'), False),
        (JSON_SCHEMA, whole('{"city":"Paris","land":"France"}'), False),
        (JSON_SCHEMA, whole('{"capital":"Paris"}'), False),
        (JSON_SCHEMA, whole('{"ci', "length"), None),
        (JSON_SCHEMA, whole("[" * 5000), False),
        (JSON_OBJECT, whole('{"capital":"Paris"}'), True),
        (JSON_OBJECT, whole('"Paris"'), False),
        (JSON_OBJECT, whole(None), False),
    ],
)
def test_verdicts(check: str, answer: Event, expected: bool | None) -> None:
    assert said(CHECKS[check], answer) is expected


@given(st.lists(st.dictionaries(st.sampled_from(["index", "id", "type", "function"]), JSON)))
def test_no_tool_call_is_so_odd_that_a_probe_fails_by_it(calls: list[dict[str, Any]]) -> None:
    assert said(CHECKS[TOOLS], whole(None, tool_calls=calls)) is False
    assert said(CHECKS[TOOLS], delta(tool_calls=calls)) is False


def test_the_first_token_is_the_first_that_says_something() -> None:
    heard = Heard(0)
    heard.take(delta(role="assistant", content=""), 1_000_000)
    assert heard.first_token_ms() is None
    heard.take(delta(reasoning_content="hm"), 5_000_000)
    heard.take(delta(content="1"), 9_000_000)
    assert heard.first_token_ms() == 5


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, None), (20, 10.0), (192, 96.0), (193, None), (10**7, None)]
)
def test_speed_is_over_the_whole_call_and_believes_no_nonsense(
    tokens: int, expected: float | None
) -> None:
    heard = Heard(0)
    heard.take(delta(content="1"), 1_000_000_000)
    heard.take(UsageReport(Usage(output_tokens=tokens)), 2_000_000_000)
    assert heard.tokens_per_second(CHECKS[STREAM].tokens_max) == expected
