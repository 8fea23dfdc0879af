"""Amounts as text: exact both ways."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.billing.amounts import decimal_usd, nano_of
from app.errors import InvalidRequest
from app.ledger.accounts import AMOUNT_NANO_USD_MAX

NANO = st.integers(-(10**18) + 1, 10**18 - 1)


@given(NANO)
def test_what_is_written_is_the_amount(nano_usd: int) -> None:
    text = decimal_usd(nano_usd)
    assert Decimal(text) * 10**9 == nano_usd
    assert "e" not in text.lower()
    assert len(text.partition(".")[2]) in range(2, 10)
    if nano_usd:
        assert nano_of(text, "amount_usd", signed=True) == nano_usd


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [(0, "0.00"), (1, "0.000000001"), (-100_000_000, "-0.10"), (25 * 10**9, "25.00")],
)
def test_examples(nano_usd: int, text: str) -> None:
    assert decimal_usd(nano_usd) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        "1.0000000001",
        ".5",
        "1.",
        "1,5",
        "NaN",
        " 1",
        "1 ",
        "1\n",
        "٣",
        "0x1",
    ],
)
@pytest.mark.parametrize("param", ["amount_usd", "limit"])
def test_what_is_no_amount_is_refused_with_a_word_on_what_is(text: str, param: str) -> None:
    with pytest.raises(InvalidRequest, match="such as") as refused:
        nano_of(text, param)
    assert refused.value.param == param


@pytest.mark.parametrize("text", ["0", "0.00", "1000000000", "9" * 400])
def test_nothing_and_too_much_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        nano_of(text, "amount_usd")


@pytest.mark.parametrize("text", ["-0", "+0.000000000", "--1", "-"])
def test_a_sign_does_not_make_an_amount(text: str) -> None:
    with pytest.raises(InvalidRequest):
        nano_of(text, "amount_usd", signed=True)


def test_the_largest_amount() -> None:
    assert nano_of("999999999.999999999", "amount_usd") < AMOUNT_NANO_USD_MAX
    assert nano_of("-999999999", "amount_usd", signed=True) == -999_999_999 * 10**9
