"""The job that books months: in portions, once, and never for ever."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from app.clock import month_ms
from app.errors import PermissionDenied
from app.jobs import catch_up as module
from app.jobs.catch_up import PAYERS_TOGETHER, catch_up
from app.ledger.store import LedgerStore, LedgerUnavailable
from tests.app.ledger.books import FREE, PERIOD, HandClock, hold, opened, used

DECEMBER_MS = month_ms(PERIOD)[1]


class PlayedLedger:
    """Payers who lack something until they are booked; some cannot be."""

    def __init__(self, payers: int, broken: set[str] | None = None) -> None:
        self.lacking = [f"user_{number:04}" for number in range(payers)]
        self.broken = broken or set()
        self.verbs: list[int] = []
        self.error: Exception = PermissionDenied("its tier is gone")

    async def payers_to_catch_up(self, limit: int) -> list[str]:
        return self.lacking[:limit]

    async def catch_up(self, payer_ids: Sequence[str]) -> None:
        self.verbs.append(len(payer_ids))
        if self.broken & set(payer_ids):
            raise self.error
        self.lacking = [each for each in self.lacking if each not in payer_ids]


def run(ledger: PlayedLedger, clock: HandClock | None = None) -> Any:
    return catch_up(cast(LedgerStore, ledger), clock or HandClock())


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0)


async def test_all_are_booked_in_portions() -> None:
    ledger = PlayedLedger(1_203)
    assert await run(ledger) == 1_203
    assert ledger.lacking == []
    assert max(ledger.verbs) == PAYERS_TOGETHER
    assert await run(ledger) == 0


async def test_calls_come_in_between() -> None:
    ledger = PlayedLedger(100)
    seen: list[int] = []

    async def caller() -> None:
        while ledger.lacking:
            seen.append(len(ledger.lacking))
            await asyncio.sleep(0)

    await asyncio.gather(run(ledger), caller())
    assert {75, 50, 25} <= set(seen)


async def test_who_cannot_be_booked_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    ledger = PlayedLedger(60, broken={"user_0003", "user_0059"})
    with caplog.at_level(logging.WARNING):
        await run(ledger)
    assert ledger.lacking == ["user_0003", "user_0059"]
    assert [record.args for record in caplog.records] == [
        (who, ledger.error) for who in ledger.lacking
    ]


async def test_a_ledger_that_stopped_ends_the_run() -> None:
    ledger = PlayedLedger(60, broken={"user_0003"})
    ledger.error = LedgerUnavailable("stopped")
    with pytest.raises(LedgerUnavailable):
        await run(ledger)
    assert ledger.verbs == [PAYERS_TOGETHER]


async def test_nothing_is_booked_while_the_time_is_in_doubt() -> None:
    ledger, clock = PlayedLedger(5), HandClock()
    clock.suspended = True
    assert await run(ledger, clock) == 0
    assert ledger.verbs == []


# On the real ledger.


async def test_all_payers_get_their_month_without_calling(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as books:
        for number in range(60):
            await books.ledger.balance(f"user_{number:02}")
        books.clock.ms = DECEMBER_MS - 1
        assert await catch_up(books.ledger, books.clock) == 0
        books.clock.ms = DECEMBER_MS
        runs = [catch_up(books.ledger, books.clock) for _ in range(3)]
        await asyncio.gather(*runs)
        assert await catch_up(books.ledger, books.clock) == 0
        await books.changed()
        granted = "SELECT reference, count(*), sum(granted_nano_usd) FROM grants GROUP BY 1"
        credit = 60 * FREE.monthly_credit_nano_usd
        assert sorted(await books.rows(granted)) == [(PERIOD, 60, credit), ("2026-12", 60, credit)]
        counted = "SELECT kind, count(*) FROM entries GROUP BY kind"
        assert sorted(await books.rows(counted)) == [("expiry", 60), ("grant", 120)]
        assert (await books.audit()).problems == []


async def test_a_grant_under_an_open_call_waits_and_the_run_ends(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as books:
        placed = await books.ledger.place_hold(
            hold(1_000, admitted_at_ms=DECEMBER_MS - 1, expires_at_ms=DECEMBER_MS + 10**7)
        )
        books.clock.ms = DECEMBER_MS
        expired = "SELECT count(*) FROM entries WHERE kind = 'expiry'"
        for _ in range(3):
            assert await catch_up(books.ledger, books.clock) == 1
        assert await books.rows(expired) == [(0,)]
        await books.ledger.settle_hold(placed.call_id, 400, used(placed.call_id))
        await catch_up(books.ledger, books.clock)
        assert await books.rows(expired) == [(1,)]
        assert await catch_up(books.ledger, books.clock) == 0
