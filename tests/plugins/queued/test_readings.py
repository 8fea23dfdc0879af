"""Laws of what is read from providers: numbers, transcripts, results, parameters."""

import base64
import json
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from plugins.contract import AdapterError
from plugins.queued.measures import SECONDS_MAX, nano_usd_of_cents, ns_of_seconds, scaled
from plugins.queued.media import result
from plugins.queued.params import supported
from plugins.queued.transcripts import heard_ms, transcript
from plugins.queued.work import checked_id, place
from plugins.replicate.wire import ReplicateWire

_ODD_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
)


@given(st.decimals(min_value=0, max_value=SECONDS_MAX, places=12))
def test_seconds_are_exact_and_rounded_up(seconds: Decimal) -> None:
    found = ns_of_seconds(Raw(f"{seconds:f}".encode()))
    exact = seconds * 10**9
    assert exact <= found < exact + 1


@given(st.binary(max_size=80))
def test_numbers_are_read_from_anything(raw: bytes) -> None:
    found = scaled(raw, 9, SECONDS_MAX)
    assert found is None or 0 <= found <= SECONDS_MAX * 10**9


@pytest.mark.parametrize("raw", [b"-1", b"1e300", b'"NaN"', b"100001", b"[1]", b"9" * 65, b""])
def test_a_bill_that_cannot_be_true_is_none(raw: bytes) -> None:
    assert nano_usd_of_cents(raw) is None


def test_a_credit_is_a_cent() -> None:
    assert nano_usd_of_cents(b"4.5") == 45_000_000
    assert nano_usd_of_cents(b"0.00000001") == 1


@given(_ODD_JSON, st.booleans())
def test_transcripts_are_read_from_anything(parts: Any, words: bool) -> None:
    raw = Raw(json.dumps(parts).encode())
    found = transcript("said", raw, parts_are_words=words)
    assert found.text == "said"
    assert 0 <= heard_ms(found) <= SECONDS_MAX * 1000


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=9))
def test_the_last_part_ends_the_sound(spans: list[tuple[float, float]]) -> None:
    ordered = [tuple(sorted(span)) for span in spans]
    forms = (
        [{"start": a, "end": b, "text": "x"} for a, b in ordered],
        [{"timestamp": [a, b], "text": "x"} for a, b in ordered],
    )
    for form in forms:
        found = transcript("", Raw(json.dumps(form).encode()))
        assert heard_ms(found) == math.ceil(max(b for _, b in ordered) * 1000)
        assert found.text == "x" * len(spans)


@pytest.mark.parametrize("bad", [[{"start": 2.0, "end": 1.0}], [{"timestamp": [-1, 2]}], [{}]])
def test_parts_that_cannot_be_true_are_left_out(bad: list[Any]) -> None:
    found = transcript("said", Raw(json.dumps(bad).encode()))
    assert (found.segments, found.duration_s) == (None, None)


@given(st.binary(min_size=1, max_size=200))
def test_inline_results_keep_their_bytes(data: bytes) -> None:
    url = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    found = result(url)
    assert (found.data, found.media_type, found.url) == (data, "image/webp", None)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        "",
        "picture.png",
        "file:///etc/hostname",
        "javascript:alert(1)",
        "ftp://a.example/b",
        "http://user:pw@a.example/b",
        "http://[::1",
        "https://a.example/b c",
        "https://a.example/\r\nx: y",
        "data:image/png;base64,***",
        "data:nonsense",
        "https://a.example/" + "a" * 9000,
    ],
)
def test_results_that_are_no_places_are_refused(bad: object) -> None:
    with pytest.raises(AdapterError) as caught:
        result(bad)
    assert len(caught.value.detail) <= 512


@pytest.mark.parametrize("bad", [None, "", 3, "a/b", "..", "a" * 129, "a b", "é", "a\n"])
def test_ids_that_are_none_are_refused(bad: object) -> None:
    with pytest.raises(AdapterError):
        checked_id(bad)


@pytest.mark.parametrize("bad", ["/path", "https://a.example", "https://a/\r\nx", "gopher://a/b"])
def test_places_that_are_no_urls_are_refused(bad: str) -> None:
    with pytest.raises(AdapterError):
        place(bad, "/usual")
    assert place(None, "/usual") == "/usual"


_TASKS = tuple(ReplicateWire.honours)


@given(st.lists(st.sampled_from(_TASKS), min_size=1, unique=True))
def test_a_parameter_is_honoured_by_all_tasks_that_can_carry_it(tasks: list[str]) -> None:
    found = supported(tuple(tasks), ReplicateWire.honours)
    for name in found:
        assert any(name in ReplicateWire.honours[task] for task in tasks)
    for task in tasks:
        if len(tasks) == 1:
            assert found == ReplicateWire.honours[task]
    if "image-to-image" in tasks:
        assert "image" in found
    if {"text-to-image", "image-to-image"} <= set(tasks) and "text-to-video" not in tasks:
        assert "strength" not in found
        assert "size" in found
    if {"text-to-image", "text-to-video"} <= set(tasks):
        assert "size" not in found
        assert "seed" in found
