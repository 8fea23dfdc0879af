"""The jobs, and that the scheduler wakes them."""

import asyncio
import logging
from pathlib import Path

import pytest

from app.jobs import schedule
from app.jobs.give_up import give_up
from app.jobs.schedule import Schedule
from app.ledger.entries import CreditTerms, HoldRequest
from app.ledger.sqlite import SqliteLedger
from app.storage.sqlite import SqliteDatabase


class StoppedClock:
    """Always the same moment."""

    def now_ms(self) -> int:
        return 1_000

    def monotonic_ns(self) -> int:
        return 0


def request(call_id: str, expires_at_ms: int) -> HoldRequest:
    return HoldRequest(
        call_id=call_id,
        payer_id="user_ann",
        user_id="user_ann",
        key_id="key_1",
        model="acme/tiny",
        amount_nano_usd=10,
        floor_nano_usd=10,
        period="2026-11",
        terms=CreditTerms(tier="free", monthly_credit_nano_usd=100, overage=False),
        admitted_at_ms=0,
        expires_at_ms=expires_at_ms,
    )


async def test_expired_holds_are_ended_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = SqliteDatabase(tmp_path / "turnpike.db")
    ledger = SqliteLedger(database, StoppedClock())
    await database.open()
    await ledger.place_hold(request("expired", 1_000))
    await ledger.place_hold(request("running", 1_001))
    with caplog.at_level(logging.WARNING):
        await give_up(ledger, StoppedClock())
    assert ledger.open_holds() == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the hold of call expired expired; nothing was charged"
    ]
    await database.close()


async def test_the_schedule_wakes_the_job_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "GIVE_UP_EVERY_S", 0.05)
    database = SqliteDatabase(tmp_path / "turnpike.db")
    ledger = SqliteLedger(database, StoppedClock())
    await database.open()
    ticking = Schedule(ledger, StoppedClock())
    ticking.start()
    for call_id in ("a", "b"):
        await ledger.place_hold(request(call_id, 1_000))
        async with asyncio.timeout(10):
            assert await ledger.wait_for_release("user_ann", 9)
    ticking.stop()
    await ledger.place_hold(request("c", 1_000))
    assert not await ledger.wait_for_release("user_ann", 0.2)
    await database.close()
