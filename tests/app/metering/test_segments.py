"""Days move out of the table into files: whatever interrupts that, each call is there once."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.metering import segments as module
from app.metering.closing import close_months, first_open_day
from app.metering.segments import Segments
from app.metering.usage import UsageLog
from app.storage import day_file
from app.storage.day_file import SegmentDamaged
from tests.app.metering.rig import DAY_MS, FIRST_MS, HOUR_MS, Books, Call, ManualClock, opened

FIRST_DAY = FIRST_MS // DAY_MS


class Killed(BaseException):
    """The process ends here."""


class Fuse:
    """Lets so many steps pass and ends the process at the next one, before or after it."""

    def __init__(self, steps: int, *, after: bool) -> None:
        self.left = steps
        self.after = after

    def burn(self, step: Callable[[], Any]) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        result = step()
        if self.left == 0:
            raise Killed
        return result


class FusedDatabase:
    """A database whose every write is a point at which the process may end."""

    def __init__(self, books: Books, fuse: Fuse) -> None:
        self._books = books
        self._fuse = fuse
        self.read = books.database.read

    async def write(self, unit: Callable[[Any], Any], *, is_note: bool = False) -> Any:
        self._fuse.left -= 1
        if self._fuse.left == 0 and not self._fuse.after:
            raise Killed
        result = await self._books.database.write(unit)
        if self._fuse.left == 0:
            raise Killed
        return result


async def _three_days(books: Books) -> None:
    calls = [
        Call(FIRST_MS + day * DAY_MS + hour * HOUR_MS + 7, user=user, cost=10 + hour)
        for day in range(3)
        for hour in range(24)
        for user in ("ann", "ben")
    ]
    await books.record(calls)
    await books.it_is(FIRST_MS + 2 * DAY_MS + 2 * HOUR_MS)  # two days are over


async def _all(log: UsageLog) -> list[str]:
    """Every call's id, by pages of an awkward length."""
    found: list[str] = []
    page = await log.rows(17)
    while page:
        found += [call.call_id for call in page]
        page = await log.rows(17, before=(page[-1].at_ms, page[-1].call_id))
    return found


def _expected(books: Books) -> list[str]:
    newest_first = sorted(books.calls, key=lambda call: (call[0].at_ms, call[0].call_id))
    return [row.call_id for row, _ in reversed(newest_first)]


async def _cut(log: UsageLog) -> int:
    """Cost of a range whose both ends cut an hour of a day that is over."""
    sums = await log.summary(["model"], FIRST_MS + 8, FIRST_MS + DAY_MS + HOUR_MS + 8)
    return sum(line.cost_nano_usd for line in sums.data)


def _cut_by_hand(books: Books) -> int:
    since, until = FIRST_MS + 8, FIRST_MS + DAY_MS + HOUR_MS + 8
    return sum(cost for row, cost in books.calls if since <= row.at_ms < until)


async def test_days_that_are_over_move_into_files(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        assert await books.segments.seal() == [FIRST_DAY, FIRST_DAY + 1]
        names = sorted(path.name for path in (tmp_path / "usage").iterdir())
        assert names == ["2026-11-01.db", "2026-11-02.db"]
        left = await books.database.read("SELECT count(*), min(at_ms) FROM usage")
        assert left == [(48, FIRST_MS + 2 * DAY_MS + 7)]
        assert await _all(books.log) == _expected(books)
        assert await _cut(books.log) == _cut_by_hand(books)
        assert await books.segments.seal() == []


async def test_a_file_explains_itself(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        await books.segments.seal()
    with sqlite3.connect(tmp_path / "usage" / "2026-11-01.db") as connection:
        found = connection.execute(
            "SELECT user_id, model, sum(cost_nano_usd) FROM usage JOIN series ON id = series_id"
            " GROUP BY 1, 2 ORDER BY 1"
        ).fetchall()
    connection.close()
    cost = sum(10 + hour for hour in range(24))
    assert found == [("user_ann", "acme/tiny", cost), ("user_ben", "acme/tiny", cost)]


async def test_a_day_with_an_open_hold_stays(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        await books.execute(
            "INSERT INTO holds (call_id, payer_id, period, user_id, key_id, model, amount_nano_usd,"
            " overage, admitted_at_ms, expires_at_ms) VALUES"
            " ('open', 'user_ann', '2026-11', 'user_ann', 'key', 'm', 1, 1, ?, 0)",
            FIRST_MS + DAY_MS + 2 * HOUR_MS,
        )
        assert await first_open_day(books.database) == FIRST_DAY + 1
        assert await books.segments.seal() == [FIRST_DAY]
        assert await close_months(books.database, books.clock) == []


@pytest.mark.parametrize("after", [False, True])
async def test_whatever_write_is_the_last_the_next_run_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_UNIT", 20)
    monkeypatch.setattr(module, "ROWS_PER_READ", 13)
    for steps in range(1, 100):
        folder = tmp_path / str(steps)
        async with opened(folder) as books:
            await _three_days(books)
            fused: Any = FusedDatabase(books, Fuse(steps, after=after))
            try:
                await Segments(folder, fused, books.clock).seal()
            except Killed:
                pass
            else:
                assert steps > 8
                return
            # Readers see each call once at that moment, and after the next run.
            assert await _all(books.log) == _expected(books)
            assert await _cut(books.log) == _cut_by_hand(books)
            await books.segments.seal()
            left = await books.database.read("SELECT count(*) FROM usage")
            assert left == [(48,)]
            assert await _all(books.log) == _expected(books)
            assert await _cut(books.log) == _cut_by_hand(books)
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("point", ["create", "insert", "finish", "sync_folder", "sha256_of"])
@pytest.mark.parametrize("after", [False, True])
async def test_whatever_step_with_the_file_is_the_last_the_next_run_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, after: bool
) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        fuse, real = Fuse(1, after=after), getattr(day_file, point)
        with monkeypatch.context() as patch:
            patch.setattr(day_file, point, lambda *given: fuse.burn(lambda: real(*given)))
            with pytest.raises(Killed):
                await books.segments.seal()
        assert await _all(books.log) == _expected(books)
        assert await books.segments.seal() == [FIRST_DAY, FIRST_DAY + 1]
        assert await _all(books.log) == _expected(books)
        assert await _cut(books.log) == _cut_by_hand(books)
        assert [path.suffix for path in (tmp_path / "usage").iterdir()] == [".db", ".db"]


async def test_nothing_is_deleted_on_the_strength_of_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        real: Callable[..., Awaitable[None]] = Segments._empty

        async def dies(self: Segments, day: int) -> None:
            raise Killed

        monkeypatch.setattr(Segments, "_empty", dies)
        with pytest.raises(Killed):
            await books.segments.seal()
        monkeypatch.setattr(Segments, "_empty", real)
        path = tmp_path / "usage" / "2026-11-01.db"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(SegmentDamaged, match=r"2026-11-01\.db"):
            await books.segments.seal()
        assert await books.database.read("SELECT count(*) FROM usage") == [(len(books.calls),)]


async def test_a_call_that_comes_late_is_neither_lost_nor_in_the_way(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        await books.segments.seal()
        await books.record([Call(FIRST_MS + 5 * HOUR_MS + 1, cost=1_000)])
        assert await books.segments.seal() == []
        assert await _all(books.log) == _expected(books)
        assert await _cut(books.log) == _cut_by_hand(books)
        since, until = FIRST_MS + 5 * HOUR_MS, FIRST_MS + 5 * HOUR_MS + 5
        late = await books.log.summary(["model"], since, until)
        assert [line.cost_nano_usd for line in late.data] == [1_000]


async def test_old_files_go_and_sums_stay(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        await books.segments.seal()
        before = (await books.log.summary(["user", "model"])).data
        assert await books.segments.drop(keep_days=1, keep_bytes=10**9) == [FIRST_DAY]
        assert [path.name for path in (tmp_path / "usage").iterdir()] == ["2026-11-02.db"]
        assert (await books.log.summary(["user", "model"])).data == before
        kept = [call for call in _expected(books) if call >= "call_000048"]
        assert await _all(books.log) == kept
        assert await books.segments.drop(keep_days=1, keep_bytes=10**9) == []


async def test_too_many_bytes_go_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        await books.segments.seal()
        newest = (await books.segments.of_days(0, 2**31))[0]
        assert await books.segments.drop(90, newest.bytes) == [FIRST_DAY]
        assert await books.segments.drop(90, newest.bytes - 1) == [FIRST_DAY + 1]
        assert list((tmp_path / "usage").iterdir()) == []


@pytest.mark.parametrize("lost", [False, True])
async def test_where_calls_are_gone_ranges_go_to_the_hour_and_still_add_up(
    tmp_path: Path, lost: bool
) -> None:
    async with opened(tmp_path) as books:
        await _three_days(books)
        await books.segments.seal()
        if lost:  # as after a restore without the folder
            (tmp_path / "usage" / "2026-11-01.db").unlink()
        else:
            await books.segments.drop(keep_days=1, keep_bytes=10**9)
        middle = FIRST_MS + 5 * HOUR_MS + 30 * 60_000
        parts = [
            await books.log.summary(["model"], 0, middle),
            await books.log.summary(["model"], middle, None),
        ]
        assert parts[0].until_ms == parts[1].since_ms == FIRST_MS + 5 * HOUR_MS
        whole = await books.log.summary(["model"])
        assert sum(part.data[0].cost_nano_usd for part in parts) == whole.data[0].cost_nano_usd
        inside = await books.log.summary(["model"], middle, middle + 1)
        assert inside.data == []
        assert inside.since_ms == inside.until_ms


async def test_a_month_is_closed_once_and_only_when_it_is_over(tmp_path: Path) -> None:
    december = FIRST_MS + 30 * DAY_MS
    async with opened(tmp_path) as books:
        assert await close_months(books.database, ManualClock()) == []
        await books.record([Call(FIRST_MS), Call(december - 1), Call(december)])
        await books.it_is(december + HOUR_MS - 1)
        assert await close_months(books.database, books.clock) == []
        await books.it_is(december + HOUR_MS)
        assert await close_months(books.database, books.clock) == [(2026 - 1970) * 12 + 10]
        assert await close_months(books.database, books.clock) == []
        rows = await books.database.read("SELECT sum(calls) FROM usage_months")
        assert rows == [(2,)]
