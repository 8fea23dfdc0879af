"""What one process wrote, the next one knows."""

from pathlib import Path

import pytest

from app.errors import Conflict, Unprocessable
from app.ledger.accounts import GrantKind
from app.ledger.entries import IdempotencyKey, Limit, NewGrant, StoredAnswer
from app.ledger.store import InsufficientCredit
from tests.app.ledger.books import HandStandings, hold, opened, used


async def test_balances_and_results_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    settled = hold(90_000_000)
    async with opened(path) as books:
        await books.ledger.place_hold(settled)
        first = await books.ledger.settle_hold(settled.call_id, 90_000_000, used(settled.call_id))
        before = await books.ledger.balance("user_ann")
    async with opened(path) as books:
        assert await books.ledger.balance("user_ann") == before
        assert await books.ledger.settle_hold(settled.call_id, 5, used(settled.call_id)) == first
        with pytest.raises(Conflict):
            await books.ledger.place_hold(settled)
        with pytest.raises(InsufficientCredit):
            await books.ledger.place_hold(hold(10_000_001))
        await books.ledger.place_hold(hold(10_000_000))
        assert (await books.audit()).problems == []


async def test_grants_are_not_given_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    bought = NewGrant(
        payer_id="user_ann", kind=GrantKind.PURCHASED, reference="pay_1", amount_nano_usd=7
    )
    entries = []
    for _ in range(3):
        async with opened(path) as books:
            await books.ledger.give(bought)
            await books.ledger.catch_up(["user_ann"])
            assert (await books.ledger.balance("user_ann")).credit_nano_usd == 100_000_007
            entries.append(await books.rows("SELECT seq, kind, hash FROM entries ORDER BY seq"))
    assert len(entries[0]) == 2
    assert entries == [entries[0]] * 3


async def test_open_holds_weigh_until_they_are_recovered(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    lost = hold(90_000_000)
    async with opened(path) as books:
        await books.ledger.place_hold(lost)
    async with opened(path) as books:
        assert books.ledger.open_holds() == 1
        with pytest.raises(InsufficientCredit):
            await books.ledger.place_hold(hold(20_000_000))
        assert [each.call_id for each in await books.ledger.recover()] == [lost.call_id]
        await books.ledger.place_hold(hold(20_000_000))


async def test_a_call_that_a_provider_knows_waits_for_its_cost(tmp_path: Path) -> None:
    """I13: it was sent under an id, so its cost can be asked for after the restart."""
    path = tmp_path / "ledger.db"
    sent = hold(90_000_000)
    async with opened(path) as books:
        await books.ledger.place_hold(sent)
        await books.ledger.bind_request(sent.call_id, "mock", "up_1")
    for _ in range(2):
        async with opened(path) as books:
            assert await books.ledger.recover() == []
            (pending,) = await books.ledger.pending_costs("mock", 10)
            assert (pending.call_id, pending.upstream_id) == (sent.call_id, "up_1")
            with pytest.raises(InsufficientCredit):
                await books.ledger.place_hold(hold(20_000_000))
            assert (await books.audit()).problems == []
    async with opened(path) as books:
        assert (await books.ledger.resolve_cost(sent.call_id, 123)).cost_nano_usd == 123
        assert (await books.audit()).problems == []


async def test_limits_go_on_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    standings = HandStandings()
    standings.limits["key", "key_1"] = Limit("key", "key_1", 1_000, 5)
    spent, open_call = hold(600), hold(300)
    async with opened(path, standings=standings) as books:
        await books.ledger.place_hold(spent)
        await books.ledger.settle_hold(spent.call_id, 600, used(spent.call_id))
        await books.ledger.place_hold(open_call)
    async with opened(path, standings=standings) as books:
        with pytest.raises(InsufficientCredit):
            await books.ledger.place_hold(hold(101))
        await books.ledger.place_hold(hold(100))
        await books.ledger.settle_hold(open_call.call_id, 1, used(open_call.call_id))
        await books.ledger.place_hold(hold(299))
        with pytest.raises(InsufficientCredit):
            await books.ledger.place_hold(hold(1))


async def test_an_idempotency_key_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    key = IdempotencyKey(key="k", request_hash=b"a" * 32)
    other = IdempotencyKey(key="k", request_hash=b"b" * 32)
    lost, answered = hold(10, idempotency=key), hold(10, idempotency=key)
    async with opened(path) as books:
        await books.ledger.place_hold(lost)
    async with opened(path) as books:
        with pytest.raises(Conflict):
            await books.ledger.place_hold(hold(10, idempotency=key))
        await books.ledger.recover()
        await books.ledger.place_hold(answered)
        answer = StoredAnswer(status=200, body=b"{}")
        row = used(answered.call_id)
        await books.ledger.settle_hold(answered.call_id, 3, row, answer=answer)
    async with opened(path) as books:
        with pytest.raises(Conflict):
            await books.ledger.place_hold(hold(10, idempotency=key))
        with pytest.raises(Unprocessable):
            await books.ledger.place_hold(hold(10, idempotency=other))


async def test_wallets_that_left_the_memory_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ledger.wallets.Wallets.__init__.__defaults__", (8,))
    async with opened(tmp_path / "ledger.db") as books:
        open_calls = []
        for round_number in range(3):
            for n in range(30):
                payer = f"user_{n}"
                # A hold of nothing ties its wallet to the memory too.
                stays = round_number == 0 and n % 10 == 0
                request = hold(0 if stays else 1_000, user=payer)
                await books.ledger.place_hold(request)
                if stays:
                    open_calls.append((request.call_id, payer))
                else:
                    row = used(request.call_id, payer=payer)
                    await books.ledger.settle_hold(request.call_id, 7, row)
        assert len(books.ledger._image.wallets._wallets) < 20
        for call_id, payer in open_calls:
            await books.ledger.settle_hold(call_id, 7, used(call_id, payer=payer))
        left = await books.rows("SELECT DISTINCT credit_nano_usd, held_nano_usd FROM wallets")
        assert left == [(100_000_000 - 21, 0)]
        assert (await books.audit()).problems == []
