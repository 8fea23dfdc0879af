"""The job that keeps the usage log short: all that is due, nothing while the time is in doubt."""

from pathlib import Path

import pytest

from app.jobs.usage_log import UsageKeeping
from tests.app.metering.rig import DAY_MS, FIRST_MS, Books, Call, ManualClock, opened


class DoubtfulClock(ManualClock):
    """A clock whose time of day is in doubt."""

    @property
    def suspended(self) -> bool:
        return True


async def _used(books: Books) -> None:
    await books.record([Call(FIRST_MS + day * DAY_MS) for day in range(40)])
    await books.it_is(FIRST_MS + 40 * DAY_MS - 1)


async def test_it_closes_seals_and_drops(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _used(books)
        job = UsageKeeping(
            books.database, books.segments, books.clock, keep_days=5, keep_bytes=10**9
        )
        for _ in range(2):  # the second run finds nothing to do
            await job.run()
            names = sorted(path.name for path in (tmp_path / "usage").iterdir())
            assert names == [f"2026-12-{day:02}.db" for day in range(5, 10)]
            left = await books.database.read(
                "SELECT (SELECT count(*) FROM usage), (SELECT sum(calls) FROM usage_months),"
                " (SELECT count(*) FROM usage_months_closed)"
            )
            assert left == [(1, 30, 1)]
        assert len(await books.log.rows()) == 6
        assert (await books.log.summary(["model"])).data[0].calls == 40


async def test_it_waits_while_the_time_is_in_doubt(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _used(books)
        clock = DoubtfulClock(books.clock.at_ms)
        await UsageKeeping(
            books.database, books.segments, clock, keep_days=5, keep_bytes=10**9
        ).run()
        assert await books.database.read("SELECT count(*) FROM usage") == [(40,)]
        assert not (tmp_path / "usage").exists()


async def test_a_damaged_file_stops_it_before_anything_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as books:
        await _used(books)
        await books.segments.seal()
        late = FIRST_MS + 20 * DAY_MS  # the day is taken for one that a crash left half moved
        await books.record([Call(late)])
        await books.execute(
            "UPDATE usage_segments SET emptied_at_ms = NULL, sha256 = printf('%064d', 0)"
            " WHERE day = ?",
            late // DAY_MS,
        )
        await UsageKeeping(
            books.database, books.segments, books.clock, keep_days=5, keep_bytes=10**9
        ).run()
        assert "2026-11-21.db is not the file that was written" in caplog.text
        assert len(list((tmp_path / "usage").iterdir())) == 39
        assert await books.database.read("SELECT count(*) FROM usage") == [(2,)]
