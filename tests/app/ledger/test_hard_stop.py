"""I5, I6, B2: 64 tasks on one payer's $0.10. Not a nano-USD too much, and no money left unused."""

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from app.ledger.store import InsufficientCredit, LedgerUnavailable
from tests.app.ledger.books import FREE, Books, hold, opened, statement, used

TASKS = 64
CREDIT = FREE.monthly_credit_nano_usd
PRICE_MIN, PRICE_MAX = 50_000, 300_000


async def test_64_tasks_spend_the_credit_exactly_to_its_end(books: Books) -> None:
    chance = random.Random(7)
    spent = refused = 0
    most_held = 0

    async def client() -> None:
        nonlocal spent, refused, most_held
        while True:
            request = hold(chance.randint(PRICE_MIN, PRICE_MAX))
            try:
                placed = await books.ledger.place_hold(request)
            except InsufficientCredit as refusal:
                if not refusal.fits_when_released:
                    refused += 1
                    return
                await books.ledger.wait_for_release("user_ann", 30)
                continue
            await asyncio.sleep(0)
            if chance.random() < 0.2:
                await books.ledger.void_hold(request.call_id, used(request.call_id))
                continue
            # One in ten costs more than its hold: the payer never pays past the credit for it.
            cost = placed.amount_nano_usd
            cost = cost * 3 if chance.random() < 0.1 else chance.randint(PRICE_MIN // 2, cost)
            row = used(request.call_id)
            ended = await books.ledger.settle_hold(request.call_id, cost, row)
            spent += ended.cost_nano_usd

    async def watch() -> None:
        nonlocal most_held
        while True:
            now = await books.ledger.balance("user_ann")
            most_held = max(most_held, now.grants[0].spent_nano_usd + now.held_nano_usd)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(client() for _ in range(TASKS)))
    watching.cancel()
    assert refused == TASKS
    assert CREDIT - PRICE_MAX < spent <= CREDIT
    assert most_held <= CREDIT
    end = await books.ledger.balance("user_ann")
    assert (end.credit_nano_usd, end.held_nano_usd) == (CREDIT - spent, 0)


async def test_partial_holds_use_the_last_nano(books: Books) -> None:
    async def client() -> int:
        spent = 0
        while True:
            request = hold(70_001, floor=1)
            try:
                placed = await books.ledger.place_hold(request)
            except InsufficientCredit as refusal:
                if not refusal.fits_when_released:
                    return spent
                await books.ledger.wait_for_release("user_ann", 30)
                continue
            row = used(request.call_id)
            spent += placed.amount_nano_usd
            await books.ledger.settle_hold(request.call_id, placed.amount_nano_usd, row)

    assert sum(await asyncio.gather(*(client() for _ in range(TASKS)))) == CREDIT


async def test_the_database_itself_refuses_to_overspend(tmp_path: Path) -> None:
    """Were the verb wrong: the CHECK fails the commit, the ledger stops, nothing is on disk."""
    path = tmp_path / "ledger.db"
    async with opened(path) as books:
        await books.ledger.place_hold(hold(1_000))
        wallet = books.ledger._image.wallets.of("user_ann")
        wallet.grants[0].granted += 50_000_000  # a bug
        with pytest.raises(LedgerUnavailable):
            await books.ledger.place_hold(hold(120_000_000))
        assert isinstance(books.database.failed, sqlite3.IntegrityError)
    async with opened(path) as books:
        assert await books.rows("SELECT held_nano_usd FROM wallets") == [(1_000,)]
        assert (await books.audit()).problems == []


async def test_the_check_alone(books: Books) -> None:
    await books.ledger.place_hold(hold(10**8))
    for change in ("held_nano_usd = held_nano_usd + 1", "credit_nano_usd = credit_nano_usd - 1"):
        with pytest.raises(sqlite3.IntegrityError, match="hard_stop"):
            await books.database.write(statement(f"UPDATE wallets SET {change}"))
    assert books.database.failed is None
