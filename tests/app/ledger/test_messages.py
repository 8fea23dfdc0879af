"""Lesson 62: whoever is stopped learns what is left, what is needed, and what to do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.accounts import GrantKind
from app.ledger.entries import CreditTerms, Limit, NewGrant
from app.ledger.messages import next_period_starts, usd_text
from app.ledger.store import InsufficientCredit
from tests.app.ledger.books import NOTHING, Books, hold, used


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


async def refusal(books: Books, amount: int, **fields: Any) -> str:
    with pytest.raises(InsufficientCredit) as refused:
        await books.ledger.place_hold(hold(amount, **fields))
    return refused.value.message


async def spend(books: Books, cost: int) -> None:
    request = hold(cost)
    await books.ledger.place_hold(request)
    await books.ledger.settle_hold(request.call_id, cost, used(request.call_id))


async def test_used_up(books: Books) -> None:
    await spend(books, 10**8)
    assert await refusal(books, 5) == (
        "You have used up the monthly included credit of $0.10. Ask the operator of this server for"
        " a higher tier or for purchased credit, or wait until 2026-12-01 (UTC), when the next"
        " month's credit starts."
    )


async def test_less_left_than_needed(books: Books) -> None:
    await spend(books, 10**8 - 2_000)
    await books.ledger.place_hold(hold(500))
    text = await refusal(books, 3_000)
    assert text.startswith(
        "$0.000002 of the monthly included credit of $0.10 is left, $0.0000005 of it set aside"
        " for calls in progress; this call needs $0.000003. Send a shorter request"
    )
    assert "2026-12-01" in text


async def test_held_by_others(books: Books) -> None:
    await spend(books, 10**8 - 2_000)
    await books.ledger.place_hold(hold(1_000))
    text = await refusal(books, 1_500)
    assert text.endswith("Send it again when those calls have ended.")


async def test_a_tier_without_credit(books: Books) -> None:
    books.standings.default = NOTHING
    assert "The none tier includes no monthly credit" in await refusal(books, 1)


async def test_purchased_credit_is_named_beside_the_monthly(books: Books) -> None:
    new = NewGrant(
        payer_id="user_ann", kind=GrantKind.PURCHASED, reference="pay_1", amount_nano_usd=10**8
    )
    await books.ledger.give(new)
    text = await refusal(books, 10**9)
    assert text.startswith("$0.20 of the credit of $0.20 ($0.10 of it included monthly) is left")


async def test_an_organisation_is_named(books: Books) -> None:
    text = await refusal(books, 10**9, bill_to="org_1")
    assert "$0.10 of the monthly included credit of $0.10 is left" in text
    request = hold(10**8, bill_to="org_1")
    await books.ledger.place_hold(request)
    await books.ledger.settle_hold(request.call_id, 10**8, used(request.call_id, payer_id="org_1"))
    assert (await refusal(books, 1, bill_to="org_1")).startswith("org_1 has used up the monthly")


async def test_a_spending_limit_is_named(books: Books) -> None:
    books.standings.limits[("key", "key_1")] = Limit("key", "key_1", 5_000, 1)
    assert await refusal(books, 6_000) == (
        "The monthly spending limit of this key, $0.000005, is used up but for $0.000005; this call"
        " needs $0.000006. Ask whoever set the limit to raise it, or wait until 2026-12-01 (UTC),"
        " when the next month starts."
    )
    await books.ledger.place_hold(hold(4_000))
    assert await refusal(books, 2_000) == (
        "The monthly spending limit of this key, $0.000005, has $0.000001 left, $0.000004 of it is"
        " set aside for calls in progress. Send the request again when those have ended."
    )


async def test_the_end_of_what_may_be_owed(books: Books) -> None:
    books.standings.default = CreditTerms(
        tier="enterprise", monthly_credit_nano_usd=100, overage=True, overage_limit_nano_usd=50
    )
    await books.ledger.place_hold(hold(150))
    assert (await refusal(books, 151)).startswith(
        "You have used this month's credit and the enterprise tier's limit of $0.00000005 past it."
    )
