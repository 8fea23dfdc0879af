"""Lesson 62: whoever is stopped learns what is left, what is needed, and what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.messages import insufficient_credit, next_period_starts, usd_text
from tests.app.ledger.books import FREE, NOTHING, hold


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (100_000_000, "$0.10"),
        (123_000, "$0.000123"),
        (1_500_000_000, "$1.50"),
        (-2_000_000_000, "-$2.00"),
        (12_345_678_901_234_567_890, "$12345678901.23456789"),
    ],
)
def test_amounts_are_exact(amount: int, text: str) -> None:
    assert usd_text(amount) == text


@given(st.integers(-(10**18), 10**18))
def test_no_nano_is_lost(amount: int) -> None:
    sign = -1 if amount < 0 else 1
    dollars, decimals = usd_text(amount).replace("-", "").removeprefix("$").split(".")
    assert sign * (int(dollars) * 10**9 + int(decimals.ljust(9, "0"))) == amount


def test_the_next_month_starts() -> None:
    assert next_period_starts("2026-11") == "2026-12-01"
    assert next_period_starts("2026-12") == "2027-01-01"


def test_used_up() -> None:
    assert insufficient_credit(hold(5, terms=FREE), 10**8, 10**8, 0) == (
        "You have used your monthly included credit of $0.10. Ask the operator of this server for"
        " a higher tier, or wait until 2026-12-01 (UTC), when the next month's credit starts."
    )


def test_less_left_than_needed() -> None:
    text = insufficient_credit(hold(3_000, terms=FREE), 10**8, 10**8 - 2_000, 500)
    assert text.startswith(
        "$0.000002 of your monthly included credit of $0.10 is left, $0.0000005 of it set aside"
        " for calls in progress; this call needs $0.000003. Send a shorter request"
    )
    assert "2026-12-01" in text


def test_held_by_others() -> None:
    text = insufficient_credit(hold(1_500, terms=FREE), 10**8, 10**8 - 2_000, 1_000)
    assert text.endswith("Send it again when those calls have ended.")


def test_a_tier_without_credit() -> None:
    text = insufficient_credit(hold(1, terms=NOTHING), 0, 0, 0)
    assert "The none tier includes no monthly credit" in text
