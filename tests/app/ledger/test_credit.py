"""The law of every ledger store about credit: tiers, months, what is owed, and sane sums."""

import pytest

from app.errors import InvalidRequest
from app.ledger.accounts import GrantKind
from app.ledger.entries import Adjustment, NewGrant
from app.ledger.store import InsufficientCredit
from tests.app.ledger.asking import balance, put_on
from tests.app.ledger.books import DECEMBER_MS, FREE, NOTHING, PRO, Books, hold, used


async def test_past_the_credit_is_overage_where_the_tier_allows_it(books: Books) -> None:
    await put_on(books, PRO)
    request = hold(3_000_000_000)
    await books.ledger.place_hold(request)
    await books.ledger.settle_hold(request.call_id, 5_000_000_000, used(request.call_id))
    assert await books.rows("SELECT kind, amount_nano_usd FROM entries ORDER BY seq") == [
        ("grant", 2_000_000_000),
        ("charge", 2_000_000_000),
        ("overage", 3_000_000_000),
    ]
    assert await books.rows("SELECT paid_from FROM usage") == [("1:2000000000,due:3000000000",)]
    now = await balance(books)
    assert (now.credit_nano_usd, now.overage_nano_usd) == (0, 3_000_000_000)


async def test_up_down_and_up_again_never_grants_twice(books: Books) -> None:
    credit = []
    for terms in (FREE, PRO, FREE, PRO, NOTHING, PRO):
        await put_on(books, terms)
        request = hold(0)
        await books.ledger.place_hold(request)
        await books.ledger.settle_hold(request.call_id, 1_000, used(request.call_id))
        credit.append((await balance(books)).credit_nano_usd)
    # A call of a tier without credit is paid by what the month had left: nothing.
    assert credit == [99_999_000, 1_999_998_000, 99_997_000, 1_999_996_000, 0, 1_999_995_000]
    ((granted, taken),) = await books.rows(
        "SELECT sum(amount_nano_usd) FILTER (WHERE kind = 'grant'),"
        " sum(amount_nano_usd) FILTER (WHERE kind = 'reversal') FROM entries"
    )
    assert granted - taken == 2 * 10**9


async def test_a_step_down_takes_back_nothing_that_is_spent_or_held(books: Books) -> None:
    await put_on(books, PRO)
    done, running = hold(500_000_000), hold(700_000_000)
    await books.ledger.place_hold(done)
    await books.ledger.settle_hold(done.call_id, 500_000_000, used(done.call_id))
    await books.ledger.place_hold(running)
    await put_on(books, FREE)
    now = await balance(books)
    assert (now.credit_nano_usd, now.available_nano_usd) == (700_000_000, 0)
    with pytest.raises(InsufficientCredit):
        await books.ledger.place_hold(hold(1))
    ended = await books.ledger.settle_hold(running.call_id, 1_000, used(running.call_id))
    assert ended.cost_nano_usd == 1_000
    assert (await balance(books)).credit_nano_usd == 0  # what it held goes back with the rest
    assert (await books.audit()).problems == []


async def test_stepping_down_past_the_credit_stops_at_once(books: Books) -> None:
    await put_on(books, PRO)
    running, later = hold(1_000_000_000), hold(10)
    await books.ledger.place_hold(running)
    await books.ledger.settle_hold(running.call_id, 4_000_000_000, used(running.call_id))
    await books.ledger.place_hold(later)
    await put_on(books, FREE)
    with pytest.raises(InsufficientCredit) as refused:
        await books.ledger.place_hold(hold(1))
    assert not refused.value.fits_when_released
    await books.ledger.place_hold(hold(0))  # what is free stays free
    ended = await books.ledger.settle_hold(later.call_id, 25, used(later.call_id))
    assert ended.cost_nano_usd == 25  # admitted on terms without a stop


async def test_each_month_has_its_own_credit(books: Books) -> None:
    late = hold(10**8)
    await books.ledger.place_hold(late)
    books.clock.ms = DECEMBER_MS
    await books.ledger.catch_up(["user_ann"])
    with pytest.raises(InsufficientCredit):  # all that is held counts, whatever its month
        await books.ledger.place_hold(hold(1, admitted_at_ms=DECEMBER_MS))
    await books.ledger.settle_hold(late.call_id, 60_000_000, used(late.call_id))
    assert await books.rows(
        "SELECT period, sum(amount_nano_usd) FROM entries WHERE kind = 'charge' GROUP BY 1"
    ) == [("2026-11", 60_000_000)]
    december = hold(10**8, admitted_at_ms=DECEMBER_MS)
    await books.ledger.place_hold(december)
    row = used(december.call_id, at_ms=DECEMBER_MS)
    await books.ledger.settle_hold(december.call_id, 10**8, row)
    assert await books.rows(
        "SELECT reference, spent_nano_usd, expired_nano_usd FROM grants ORDER BY id"
    ) == [("2026-11", 60_000_000, 40_000_000), ("2026-12", 10**8, 0)]
    with pytest.raises(InsufficientCredit):
        await books.ledger.place_hold(hold(1, admitted_at_ms=DECEMBER_MS))


async def test_a_tier_that_changes_while_the_clock_is_in_doubt_is_booked_afterwards(
    books: Books,
) -> None:
    await balance(books)
    books.clock.suspended = True
    await put_on(books, PRO)
    assert (await balance(books)).credit_nano_usd == 10**8
    books.clock.suspended = False
    assert (await balance(books)).credit_nano_usd == 2 * 10**9


BILLION = 10**18


async def test_sums_stay_within_64_bits_and_the_ledger_goes_on(books: Books) -> None:
    await put_on(books, PRO)
    for number in range(4):
        kind = GrantKind.PURCHASED
        new = NewGrant(
            payer_id="user_ann", kind=kind, reference=f"{number}", amount_nano_usd=BILLION
        )
        if number == 3:  # with the month's credit it would be more than four billion
            with pytest.raises(InvalidRequest, match="four billion"):
                await books.ledger.give(new)
        else:
            await books.ledger.give(new)
    overrun = 0
    for _ in range(9):
        request = hold(0)
        await books.ledger.place_hold(request)
        ended = await books.ledger.settle_hold(request.call_id, BILLION, used(request.call_id))
        overrun += ended.overrun_nano_usd
    now = await balance(books)
    assert now.credit_nano_usd == 0
    assert now.overage_nano_usd <= 4 * BILLION
    assert overrun > 0
    for number in range(5):
        adjustment = Adjustment(
            id=f"a{number}",
            payer_id="user_ann",
            amount_nano_usd=-BILLION,
            reason="typed wrong",
            author="root",
        )
        with pytest.raises(InvalidRequest, match="four billion"):
            await books.ledger.adjust(adjustment)
    assert books.database.failed is None
