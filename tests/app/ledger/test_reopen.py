"""What one process wrote, the next one knows."""

from pathlib import Path

import pytest

from app.errors import Conflict
from app.ledger.store import InsufficientCredit
from tests.app.ledger.books import hold, opened, used


async def test_balances_and_results_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    settled = hold(90_000_000)
    async with opened(path) as books:
        await books.ledger.place_hold(settled)
        first = await books.ledger.settle_hold(settled.call_id, 90_000_000, used(settled.call_id))
    async with opened(path) as books:
        assert await books.ledger.settle_hold(settled.call_id, 5, used(settled.call_id)) == first
        with pytest.raises(Conflict):
            await books.ledger.place_hold(settled)
        with pytest.raises(InsufficientCredit):
            await books.ledger.place_hold(hold(10_000_001))
        await books.ledger.place_hold(hold(10_000_000))
        assert (await books.audit()).problems == []


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


async def test_months_that_left_the_memory_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ledger.months.Months.__init__.__defaults__", (8,))
    async with opened(tmp_path / "ledger.db") as books:
        open_calls = []
        for round_number in range(3):
            for n in range(30):
                payer = f"user_{n}"
                # A hold of nothing ties its month to the memory too.
                stays = round_number == 0 and n % 10 == 0
                request = hold(0 if stays else 1_000, payer=payer)
                await books.ledger.place_hold(request)
                if stays:
                    open_calls.append((request.call_id, payer))
                else:
                    row = used(request.call_id, payer=payer)
                    await books.ledger.settle_hold(request.call_id, 7, row)
        assert len(books.ledger._image._months._months) < 20
        for call_id, payer in open_calls:
            await books.ledger.settle_hold(call_id, 7, used(call_id, payer=payer))
        assert await books.rows("SELECT DISTINCT posted_nano_usd, held_nano_usd FROM balances") == [
            (21, 0)
        ]
        assert (await books.audit()).problems == []
