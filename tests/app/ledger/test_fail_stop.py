"""D11: after a failed write nothing is answered but LedgerUnavailable, or written."""

import asyncio
import sqlite3
from collections.abc import Awaitable
from pathlib import Path

import pytest

from app.ledger.store import LedgerUnavailable
from app.storage.database import Transaction
from tests.app.ledger.books import PRO, HandStandings, hold, opened, used


def _plant(tx: Transaction) -> None:
    tx.execute(
        "CREATE TRIGGER fault BEFORE INSERT ON usage WHEN NEW.attempts = 66 BEGIN"
        " SELECT RAISE(ABORT, 'planted'); END"
    )


async def test_one_failed_group_stops_the_ledger_for_good(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    requests = [hold(1_000) for _ in range(8)]
    async with opened(path, standings=HandStandings(PRO)) as books:
        await books.database.write(_plant)
        await asyncio.gather(*(books.ledger.place_hold(request) for request in requests))
        verbs: list[Awaitable[object]] = [
            books.ledger.settle_hold(
                request.call_id, 500, used(request.call_id, attempts=66 if n == 3 else 1)
            )
            for n, request in enumerate(requests)
        ]
        verbs.append(books.ledger.place_hold(hold(1)))
        ended = await asyncio.gather(*verbs, return_exceptions=True)
        assert {type(each) for each in ended} == {LedgerUnavailable}
        assert isinstance(books.database.failed, sqlite3.IntegrityError)
        with pytest.raises(LedgerUnavailable, match="restart"):
            await books.ledger.place_hold(hold(1))
        with pytest.raises(LedgerUnavailable):
            await books.database.write(lambda tx: tx.execute("SELECT 1"))
        assert await books.rows("SELECT count(*) FROM settlements") == [(0,)]
    async with opened(path, standings=HandStandings(PRO)) as books:
        assert books.database.failed is None
        assert len(await books.ledger.recover()) == len(requests)
        assert (await books.audit()).problems == []


async def test_verbs_queued_behind_the_failing_group_are_answered_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db", standings=HandStandings(PRO)) as books:
        await books.database.write(_plant)
        request = hold(1_000)
        await books.ledger.place_hold(request)
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(
                books.ledger.settle_hold(request.call_id, 1, used(request.call_id, attempts=66))
            )
        ]
        for _ in range(200):
            tasks.append(asyncio.create_task(books.ledger.place_hold(hold(1))))
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in ended} == {LedgerUnavailable}


async def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db", standings=HandStandings(PRO)) as books:
        ledger = books.ledger
    with pytest.raises(LedgerUnavailable, match="shutting down"):
        await ledger.place_hold(hold(1))
    with pytest.raises(LedgerUnavailable):
        await ledger.balance("user_ann")
