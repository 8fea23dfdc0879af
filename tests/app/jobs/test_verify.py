"""The hourly look at the journal: says once, loudly, what it found."""

from pathlib import Path

import pytest

from app.jobs.verify import verify_slice
from app.ledger.verify import JournalWatch
from tests.app.ledger.books import hold, opened, statement, used


async def test_damage_is_said_once_and_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path / "ledger.db") as books:
        request = hold(1_000)
        await books.ledger.place_hold(request)
        await books.ledger.settle_hold(request.call_id, 7, used(request.call_id))
        watch = JournalWatch(books.database)
        await verify_slice(watch)
        assert (watch.problem, caplog.text) == (None, "")
        await books.database.write(statement("DROP TRIGGER entries_no_update"))
        await books.database.write(statement("UPDATE entries SET at_ms = 1 WHERE seq = 2"))
        for _ in range(2):
            await verify_slice(watch)
            assert "Entry 2 " in str(watch.problem)
        (record,) = caplog.records
        assert record.levelname == "CRITICAL"
        assert "restore a backup" in record.getMessage()
