"""The job that makes invoices, and that it is in the table of jobs."""

import logging
from pathlib import Path
from typing import Any, cast

import pytest

from app.jobs.close_months import close_months
from app.jobs.schedule import Crew, table
from tests.app.billing.bills import open_bills


async def test_the_job_closes_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_bills(tmp_path / "ledger.db") as bills:
        await bills.call("user_ann", 1_000)
        late = await bills.open_call("user_ben", 1_000)
        bills.at("2026-04")
        with caplog.at_level(logging.INFO, "app.jobs.close_months"):
            await close_months(bills.closing)
            assert caplog.messages == [
                "1 invoices were made, the last is TP-1",
                "1 invoices wait for calls that have not ended",
            ]
            await bills.settle(late, 10)
            await close_months(bills.closing)
            caplog.clear()
            await close_months(bills.closing)
            assert caplog.messages == []
        assert len(await bills.all()) == 2


async def test_the_schedule_wakes_it_at_the_start_and_every_hour(tmp_path: Path) -> None:
    async with open_bills(tmp_path / "ledger.db") as bills:
        crew = Crew(
            database=bills.books.database,
            ledger=bills.books.ledger,
            clock=cast(Any, bills.books.clock),
            resolution=cast(Any, None),
            closing=bills.closing,
        )
        # The hand clock has no ages of its own.
        bills.books.clock.ages = bills.books.clock  # type: ignore[attr-defined]
        (job,) = [job for job in table(crew) if job.name == "close months"]
        assert (job.every_s, job.at_start) == (3600, True)
        await bills.call("user_ann", 1_000)
        bills.at("2026-04")
        await job.run()
        assert len(await bills.all()) == 1
