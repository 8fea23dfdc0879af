"""What counts as a cost in a billing API's answer, and what does not."""

import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.billing.cost_answers import UnreadableAnswer, read_costs
from app.ledger.accounts import AMOUNT_NANO_USD_MAX

IDS = 20_000
NO_COSTS = [
    *("-1", "-0.5", "-1e-30", "NaN", "Infinity", "-Infinity", "null", "true", "false"),
    *('"12"', "{}", "[]", "[12]", "1e19", "1000000000000000000.5", "1e999999999"),
    "1e99999999999999999999999",
    "9" * 5000,
]


def entry(request_id: str, cost: str) -> str:
    return f'{{"requestId": {json.dumps(request_id)}, "costNanoUsd": {cost}}}'


def answer(*entries: str) -> bytes:
    return ('{"requests": [' + ",".join(entries) + "]}").encode()


@pytest.mark.parametrize(
    ("text", "cost"),
    [
        ("0", 0),
        ("-0", 0),
        ("0.0", 0),
        ("-0.0", 0),
        ("1200", 1200),
        ("1200.0", 1200),
        ("1200.000000000000000000000000000001", 1201),
        ("0.1", 1),
        ("1e-400000000", 1),
        ("1.5e3", 1500),
        ("12.3456E2", 1235),
        ("9007199254740993", 9007199254740993),  # a float would make it …992
        ("999999999999999999.5", AMOUNT_NANO_USD_MAX),
        ("1e18", AMOUNT_NANO_USD_MAX),
    ],
)
def test_a_number_is_read_exactly_and_rounded_up(text: str, cost: int) -> None:
    found = read_costs(answer(entry("a", text)), {"a"})
    assert found.by_id == {"a": cost}
    assert not found.refused
    assert not found.conflicting


@pytest.mark.parametrize("text", NO_COSTS, ids=lambda text: text[:30])
def test_what_cannot_be_a_cost_is_left_out_and_hides_nothing(text: str) -> None:
    found = read_costs(answer(entry("a", text), entry("b", "5"), '{"requestId": "c"}'), set("abc"))
    assert found.by_id == {"b": 5}
    assert found.refused == {"a", "c"}


def test_ids_that_were_not_asked_and_odd_entries_are_passed_over() -> None:
    odd = ["null", "7", '"a"', "[]", "{}", entry("z", "5"), '{"requestId": 3, "costNanoUsd": 5}']
    found = read_costs(answer(*odd, entry("a", "5"), entry("\ud800", "5")), {"a", "b"})
    assert found.by_id == {"a": 5}
    assert found.refused == set()


def test_the_first_good_figure_counts_and_another_one_is_named() -> None:
    body = answer(*(entry("a", text) for text in ("-1", "7", "6.5", "8")), entry("b", "null"))
    found = read_costs(body, {"a", "b"})
    assert found.by_id == {"a": 7}
    assert found.conflicting == {"a"}
    assert found.refused == {"b"}


def test_null_is_later() -> None:
    assert read_costs(b'{"requests": null}', {"a"}).by_id == {}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"null", b"3", b'{"requests": {}}', b'{"requests": "x"}', b"{}"),
        *(b'{"requests": [', b'{"requests": "\xff"}', b"[" * 200_000, b'{"requests": [}'),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_anything_else_is_no_answer(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        read_costs(body, {"a"})


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_survived(body: bytes) -> None:
    for sent in (body, b'{"requests": [' + body, b'{"requests": [{"requestId": "a", ' + body):
        try:
            read_costs(sent, {"a"})
        except UnreadableAnswer:
            continue


numbers = st.one_of(
    st.integers(0, AMOUNT_NANO_USD_MAX).map(str),
    st.decimals(0, AMOUNT_NANO_USD_MAX, allow_nan=False).map(str),
    st.tuples(st.integers(0, 10**12), st.integers(-30, 6)).map(lambda p: f"{p[0]}e{p[1]}"),
)


@given(numbers)
def test_rounding_is_that_of_exact_fractions(text: str) -> None:
    exact = Fraction(text)
    assert read_costs(answer(entry("a", text)), {"a"}).by_id == {"a": math.ceil(exact)}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_order_and_duplication_are_irrelevant(seed: int) -> None:
    """20,000 ids: good figures, bad ones, missing ones, repeats and strangers, shuffled."""
    rng = random.Random(seed)
    asked, expected, entries = set(), {}, []
    for number in range(IDS):
        request_id = f"id-{number}"
        asked.add(request_id)
        for _ in range(rng.choice((0, 0, 0, 1))):
            entries.append(entry(request_id, rng.choice(NO_COSTS)))
        if rng.random() < 0.7:
            text = rng.choice((str(rng.randrange(10**9)), f"{rng.randrange(10**6)}.25"))
            expected[request_id] = math.ceil(Fraction(text))
            entries += [entry(request_id, text)] * rng.choice((1, 1, 1, 2, 3))
        if rng.random() < 0.1:
            entries.append(entry(f"stranger-{number}", "12"))
    rng.shuffle(entries)
    found = read_costs(answer(*entries), asked)
    assert found.by_id == expected
    assert not found.conflicting
    assert not found.refused & expected.keys()
