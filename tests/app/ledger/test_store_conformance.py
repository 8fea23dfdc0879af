"""The law of every ledger store: what each verb does, answers and refuses."""

import asyncio

import msgspec
import pytest

from app.errors import Conflict, NotFound
from app.ledger.entries import (
    HoldState,
    Outcome,
    Settlement,
)
from app.ledger.store import InsufficientCredit
from tests.app.ledger.asking import balance, put_on, spent
from tests.app.ledger.books import NOTHING, START_MS, Books, hold, used


async def test_a_hold_settles_at_its_cost_and_frees_the_rest(books: Books) -> None:
    request = hold(4_000_000)
    placed = await books.ledger.place_hold(request)
    assert placed.amount_nano_usd == 4_000_000
    assert books.ledger.open_holds() == 1
    now = await balance(books)
    assert (now.credit_nano_usd, now.held_nano_usd) == (10**8, 4_000_000)
    ended = await books.ledger.settle_hold(request.call_id, 1_200_000, used(request.call_id))
    assert ended == Settlement(
        call_id=request.call_id, state=HoldState.SETTLED, cost_nano_usd=1_200_000
    )
    assert books.ledger.open_holds() == 0
    now = await balance(books)
    assert (now.grants[0].spent_nano_usd, now.held_nano_usd) == (1_200_000, 0)
    assert now.available_nano_usd == 98_800_000
    assert await books.rows("SELECT kind, amount_nano_usd FROM entries ORDER BY seq") == [
        ("grant", 10**8),
        ("charge", 1_200_000),
    ]
    assert await books.rows(
        "SELECT call_id, outcome, cost_nano_usd, paid_from FROM usage JOIN series ON id = series_id"
    ) == [(request.call_id, "completed", 1_200_000, "1:1200000")]


async def test_void_frees_all_and_moves_no_money(books: Books) -> None:
    request = hold(4_000_000)
    await books.ledger.place_hold(request)
    row = used(request.call_id, outcome=Outcome.FAILED)
    ended = await books.ledger.void_hold(request.call_id, row)
    assert (ended.state, ended.cost_nano_usd) == (HoldState.VOID, 0)
    assert (await balance(books)).available_nano_usd == 10**8
    assert await books.rows("SELECT kind FROM entries") == [("grant",)]
    assert await books.rows(
        "SELECT outcome, cost_nano_usd FROM usage JOIN series ON id = series_id"
    ) == [("failed", 0)]


async def test_a_cost_of_zero_settles_without_an_entry(books: Books) -> None:
    request = hold(4_000_000)
    await books.ledger.place_hold(request)
    ended = await books.ledger.settle_hold(request.call_id, 0, used(request.call_id))
    assert ended.state is HoldState.SETTLED
    assert await books.rows("SELECT kind FROM entries") == [("grant",)]


async def test_a_free_call_is_admitted_without_credit(books: Books) -> None:
    await put_on(books, NOTHING)
    request = hold(0)
    await books.ledger.place_hold(request)
    ended = await books.ledger.settle_hold(request.call_id, 0, used(request.call_id))
    assert ended.cost_nano_usd == 0
    assert await books.rows("SELECT count(*) FROM entries") == [(0,)]


@pytest.mark.parametrize("first", ["settle", "void", "give_up"])
@pytest.mark.parametrize("second", ["settle", "void", "give_up"])
async def test_a_hold_ends_once(books: Books, first: str, second: str) -> None:
    request = hold(4_000_000)
    await books.ledger.place_hold(request)

    async def end(how: str, cost: int) -> Settlement | None:
        if how == "settle":
            row = used(request.call_id)
            return await books.ledger.settle_hold(request.call_id, cost, row)
        if how == "void":
            return await books.ledger.void_hold(request.call_id, used(request.call_id))
        found = await books.ledger.give_up_expired(request.expires_at_ms)
        return found[0] if found else None

    result = await end(first, 1_000_000)
    assert result is not None
    again = await end(second, 2_000_000)
    assert again in (result, None)
    assert (again is None) == (second == "give_up")
    assert await end("void", 0) == result
    assert await spent(books) == result.cost_nano_usd
    assert await books.rows("SELECT count(*) FROM usage") == [(1,)]


async def test_repeats_within_one_group_end_the_hold_once(books: Books) -> None:
    request = hold(4_000_000)
    placing = asyncio.create_task(books.ledger.place_hold(request))
    await asyncio.sleep(0)
    results = await asyncio.gather(
        *(
            books.ledger.settle_hold(request.call_id, cost, used(request.call_id))
            for cost in (7, 8, 9)
        ),
    )
    assert (await placing).amount_nano_usd == 4_000_000
    assert {result.cost_nano_usd for result in results} == {7}
    assert await spent(books) == 7


async def test_a_call_id_is_used_once(books: Books) -> None:
    request = hold(1_000)
    await books.ledger.place_hold(request)
    with pytest.raises(Conflict):
        await books.ledger.place_hold(request)
    await books.ledger.void_hold(request.call_id, used(request.call_id))
    with pytest.raises(Conflict):
        await books.ledger.place_hold(request)
    assert books.ledger.open_holds() == 0


async def test_ids_out_of_order_are_no_conflict(books: Books) -> None:
    for call_id in ("m", "a", "z", "b"):
        await books.ledger.place_hold(hold(10, call_id=call_id))
    await books.ledger.settle_hold("a", 5, used("a"))
    with pytest.raises(Conflict):
        await books.ledger.place_hold(hold(10, call_id="a"))
    await books.ledger.place_hold(hold(10, call_id="c"))


async def test_an_unknown_call_cannot_end(books: Books) -> None:
    with pytest.raises(NotFound):
        await books.ledger.settle_hold("nobody", 1, used("nobody"))
    with pytest.raises(NotFound):
        await books.ledger.void_hold("nobody", used("nobody"))
    assert await books.rows("SELECT count(*) FROM usage") == [(0,)]


async def test_the_hard_stop_gives_what_is_left_down_to_the_floor(books: Books) -> None:
    await books.ledger.place_hold(hold(99_000_000))
    partial = await books.ledger.place_hold(hold(5_000_000, floor=1_000_000))
    assert partial.amount_nano_usd == 1_000_000
    with pytest.raises(InsufficientCredit) as refused:
        await books.ledger.place_hold(hold(5_000_000, floor=1))
    assert refused.value.held_nano_usd == 10**8
    assert refused.value.fits_when_released
    with pytest.raises(InsufficientCredit) as refused:
        await books.ledger.place_hold(hold(10**8 + 1))
    assert not refused.value.fits_when_released
    assert books.ledger.open_holds() == 2


async def test_a_refused_hold_leaves_nothing_behind(books: Books) -> None:
    with pytest.raises(InsufficientCredit):
        await books.ledger.place_hold(hold(10**8 + 1))
    assert await books.rows("SELECT count(*) FROM holds") == [(0,)]
    assert await books.rows("SELECT kind FROM entries") == [("grant",)]  # the month's credit
    assert (await balance(books)).available_nano_usd == 10**8


@pytest.mark.parametrize("factor", [1, 2, 10, 10**9])
async def test_a_cost_past_hold_and_room_is_the_houses(books: Books, factor: int) -> None:
    other, request = hold(60_000_000), hold(30_000_000)
    await books.ledger.place_hold(other)
    await books.ledger.place_hold(request)
    cost = 30_000_000 * factor
    ended = await books.ledger.settle_hold(request.call_id, cost, used(request.call_id))
    assert ended.cost_nano_usd == min(cost, 40_000_000)
    assert ended.overrun_nano_usd == cost - ended.cost_nano_usd
    await books.ledger.settle_hold(other.call_id, 60_000_000, used(other.call_id))
    assert await spent(books) == 60_000_000 + ended.cost_nano_usd
    assert (await books.audit()).house["cogs"] == 60_000_000 + cost


async def test_expired_holds_are_given_up_and_a_late_cost_is_forgiven(books: Books) -> None:
    early, late = hold(1_000, expires_at_ms=START_MS + 10), hold(1_000)
    await books.ledger.place_hold(early)
    await books.ledger.place_hold(late)
    assert await books.ledger.give_up_expired(START_MS + 9) == []
    given_up = await books.ledger.give_up_expired(START_MS + 10)
    assert [(each.call_id, each.state) for each in given_up] == [(early.call_id, HoldState.GAVE_UP)]
    assert await books.rows(
        "SELECT call_id, outcome, user_id, model FROM usage JOIN series ON id = series_id"
    ) == [(early.call_id, "killed", "user_ann", "acme/tiny")]
    for cost in (700, 800, 700):  # a repeat changes nothing
        ended = await books.ledger.settle_hold(early.call_id, cost, used(early.call_id))
        assert (ended.state, ended.cost_nano_usd) == (HoldState.GAVE_UP, 0)
    assert await spent(books) == 0
    house = (await books.audit()).house
    assert (house["forgiven"], house["cogs"]) == (-700, 700)


async def test_late_costs_in_one_group_are_forgiven_once(books: Books) -> None:
    request = hold(1_000)
    await books.ledger.place_hold(request)
    await books.ledger.recover()
    await asyncio.gather(
        *(books.ledger.settle_hold(request.call_id, cost, used(request.call_id)) for cost in (5, 6))
    )
    assert (await books.audit()).house["forgiven"] == -5


async def test_recover_ends_every_hold_at_no_charge(books: Books) -> None:
    requests = [hold(1_000 + n, user=f"user_{n % 3}") for n in range(50)]
    await asyncio.gather(*(books.ledger.place_hold(request) for request in requests))
    lost = await books.ledger.recover()
    assert {each.call_id for each in lost} == {request.call_id for request in requests}
    assert {(each.state, each.cost_nano_usd) for each in lost} == {(HoldState.GAVE_UP, 0)}
    assert books.ledger.open_holds() == 0
    assert await books.ledger.recover() == []
    assert await books.rows(
        "SELECT outcome, count(*) FROM usage JOIN series ON id = series_id GROUP BY 1"
    ) == [("killed", 50)]


async def test_a_hold_placed_and_given_up_in_one_group(books: Books) -> None:
    request = hold(1_000)
    _, given_up = await asyncio.gather(
        books.ledger.place_hold(request), books.ledger.give_up_expired(request.expires_at_ms)
    )
    assert [each.call_id for each in given_up] == [request.call_id]


@pytest.mark.parametrize(
    ("amount", "floor"), [(-1, -1), (10, 11), (10**18 + 1, 0), (2**70, 0), (10, -1)]
)
async def test_amounts_out_of_range_are_refused(books: Books, amount: int, floor: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        await books.ledger.place_hold(hold(amount, floor=floor))
    assert books.ledger.open_holds() == 0


async def test_what_no_row_could_hold_is_refused_and_stops_nothing(books: Books) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        await books.ledger.place_hold(hold(1, user="\ud800"))
    request = hold(1_000)
    await books.ledger.place_hold(request)
    for cost in (-1, 2**64):
        with pytest.raises(ValueError, match="out of range"):
            await books.ledger.settle_hold(request.call_id, cost, used(request.call_id))
    for fields in (
        {"input_tokens": 2**63},
        {"compute_ns": -1},
        {"output_tokens": 1.5},
        {"first_token_ms": -4},
        {"call_id": "another"},
        {"provider": "\udfff"},
    ):
        with pytest.raises(ValueError, match=r".+"):
            row = msgspec.structs.replace(used(request.call_id), **fields)
            await books.ledger.settle_hold(request.call_id, 1, row)
    assert books.ledger.open_holds() == 1
    await books.ledger.settle_hold(request.call_id, 1, used(request.call_id))


async def test_waiting_ends_when_a_hold_of_that_payer_ends(books: Books) -> None:
    mine, theirs = hold(1_000), hold(1_000, user="user_ben")
    await books.ledger.place_hold(mine)
    await books.ledger.place_hold(theirs)
    waiting = asyncio.create_task(books.ledger.wait_for_release("user_ann", 30))
    await asyncio.sleep(0)
    await books.ledger.void_hold(theirs.call_id, used(theirs.call_id, payer="user_ben"))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await books.ledger.settle_hold(mine.call_id, 1, used(mine.call_id))
    assert await waiting


async def test_waiting_gives_up_in_time_and_forgets_its_place(books: Books) -> None:
    await books.ledger.place_hold(hold(1_000))
    assert not await books.ledger.wait_for_release("user_ann", 0.01)
    waiting = asyncio.create_task(books.ledger.wait_for_release("user_ann", 30))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await books.ledger.recover()


async def test_nobody_waits_for_a_payer_who_holds_nothing(books: Books) -> None:
    assert await books.ledger.wait_for_release("user_ann", 30)
