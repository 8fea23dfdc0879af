"""The raw usage log of days that are over: one file per day, out of the database.

A day moves in steps, each of which a crash may interrupt and the next run completes:

1. its rows are copied into ``usage/YYYY-MM-DD.db.part``, which is read back, flushed to the disk
   and renamed;
2. it is entered in ``usage_segments``: from now on readers take the day from the file alone;
3. its rows leave the table, a few at a time, and ``emptied_at_ms`` is set: from now on readers
   take the day from both, so a row that came late is not lost.

Files are dropped by age and by size: first marked, then unlinked. Sums stay for good.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.clock import DAY_MS, Clock
from app.metering.closing import first_open_day
from app.metering.rollup import day_name
from app.storage import day_file
from app.storage.database import Database, Params, Row, Transaction
from app.storage.day_file import SERIES_COLUMNS, USAGE_COLUMNS, SegmentDamaged

FOLDER = "usage"
ROWS_PER_READ = 5000
ROWS_PER_UNIT = 500  # that leave the table at once: about a millisecond, which calls wait for
_PART = ".part"
_EMPTY = (
    "DELETE FROM usage WHERE (at_ms, call_id) IN"
    " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))"
)
_PAGE = (
    f"SELECT {USAGE_COLUMNS} FROM usage"  # noqa: S608
    " WHERE (at_ms, call_id) > (?, ?) AND at_ms < ? ORDER BY at_ms, call_id LIMIT ?"
)
_NAMES = f"SELECT {SERIES_COLUMNS} FROM series WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608


class Segment(NamedTuple):
    """A day that was moved out of the table; ``emptied`` once none of its rows is left there."""

    day: int
    rows: int
    bytes: int
    sha256: str
    emptied: int
    dropped: int


class Segments:
    """The files of one data directory."""

    def __init__(self, data_dir: Path, database: Database, clock: Clock) -> None:
        self._folder = data_dir / FOLDER
        self._database = database
        self._clock = clock

    # Reading.

    async def of_days(self, first: int, last: int) -> list[Segment]:
        """The segments from day ``first`` to ``last``, newest first."""
        rows = await self._database.read(
            "SELECT day, rows, bytes, sha256, emptied_at_ms IS NOT NULL, dropped_at_ms IS NOT NULL"
            " FROM usage_segments WHERE day >= ? AND day <= ? ORDER BY day DESC",
            (first, last),
        )
        return [Segment(*row) for row in rows]

    async def ask(self, day: int, sql: str, params: Params) -> list[Row] | None:
        """The answer of a day's file; None where there is none any more."""
        return await asyncio.to_thread(day_file.ask, self._path(day), sql, params)

    # Moving days out.

    async def seal(self) -> list[int]:
        """Move all days that are over out of the table; the days that it finished."""
        await asyncio.to_thread(self._tidy)
        sealed = []
        open_day = await first_open_day(self._database)
        day = await self._day_from(0)
        while day is not None and day < open_day:
            if await self._seal(day):
                sealed.append(day)
            day = await self._day_from(day + 1)
        return sealed

    async def drop(self, keep_days: int, keep_bytes: int) -> list[int]:
        """Give up segments that are too old, or too much together, oldest first."""
        today = self._clock.now_ms() // DAY_MS
        kept, dropped = 0, []
        for segment in await self.of_days(0, today):
            if segment.dropped or not segment.emptied:
                continue
            kept += segment.bytes
            if segment.day < today - keep_days or kept > keep_bytes:
                dropped.append(segment.day)
        for day in reversed(dropped):
            await self._database.write(partial(_mark, "dropped_at_ms", day, self._clock.now_ms()))
        gone = await self._database.read(
            "SELECT day FROM usage_segments WHERE dropped_at_ms IS NOT NULL"
        )
        await asyncio.to_thread(self._unlink, [day for (day,) in gone])
        return dropped

    async def _day_from(self, day: int) -> int | None:
        rows = await self._database.read(
            "SELECT min(at_ms) FROM usage WHERE at_ms >= ?", (day * DAY_MS,)
        )
        at_ms: int | None = rows[0][0]
        return None if at_ms is None else at_ms // DAY_MS

    async def _seal(self, day: int) -> bool:
        found = await self.of_days(day, day)
        if found and found[0].emptied:
            return False  # what came late stays in the table
        if not found:
            rows, size, digest = await self._write(day)
            now_ms = self._clock.now_ms()
            entry = (day, rows, size, digest, now_ms)
            await self._database.write(partial(_enter, entry))
        elif not await asyncio.to_thread(self._is_whole, found[0]):
            raise SegmentDamaged(
                f"{self._path(day)} is not the file that was written: its rows stay in the"
                " database. Put the file back from a backup."
            )
        await self._empty(day)
        return True

    async def _write(self, day: int) -> tuple[int, int, str]:
        """Copy a day into its file; its rows, its bytes and their SHA-256."""
        path = self._path(day)
        part = path.with_name(path.name + _PART)
        connection = await asyncio.to_thread(day_file.create, part)
        series: set[int] = set()
        rows, after = 0, (day * DAY_MS, "")
        try:
            while page := await self._database.read(
                _PAGE, (*after, (day + 1) * DAY_MS, ROWS_PER_READ)
            ):
                await asyncio.to_thread(day_file.insert, connection, "usage", page)
                series.update(row[2] for row in page)
                rows, after = rows + len(page), (page[-1][0], page[-1][1])
            numbers = msgspec.json.encode(sorted(series)).decode()
            names = await self._database.read(_NAMES, (numbers,))
            await asyncio.to_thread(day_file.insert, connection, "series", names)
        finally:
            await asyncio.to_thread(connection.close)
        return await asyncio.to_thread(day_file.finish, part, path, rows)

    async def _empty(self, day: int) -> None:
        """Take the file's rows out of the table, few at a time."""
        after = (-1, "")
        sql = (
            "SELECT at_ms, call_id FROM usage WHERE (at_ms, call_id) > (?, ?)"
            " ORDER BY at_ms, call_id LIMIT ?"
        )
        while page := await self.ask(day, sql, (*after, ROWS_PER_UNIT)):
            keys = msgspec.json.encode(page).decode()
            await self._database.write(partial(_delete, keys), is_note=True)
            after = page[-1][0], page[-1][1]
        await self._database.write(partial(_mark, "emptied_at_ms", day, self._clock.now_ms()))

    # Files.

    def _path(self, day: int) -> Path:
        return self._folder / f"{day_name(day)}.db"

    def _tidy(self) -> None:
        """Make the folder; remove what an interrupted run left half done."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in self._folder.glob(f"*{_PART}*"):
            part.unlink(missing_ok=True)

    def _is_whole(self, segment: Segment) -> bool:
        path = self._path(segment.day)
        return path.exists() and (path.stat().st_size, day_file.sha256_of(path)) == (
            segment.bytes,
            segment.sha256,
        )

    def _unlink(self, days: Sequence[int]) -> None:
        for day in days:
            self._path(day).unlink(missing_ok=True)


def _enter(entry: tuple[int, int, int, str, int], tx: Transaction) -> None:
    tx.execute(
        "INSERT INTO usage_segments (day, rows, bytes, sha256, sealed_at_ms)"
        " VALUES (?, ?, ?, ?, ?)",
        entry,
    )


def _mark(column: str, day: int, now_ms: int, tx: Transaction) -> None:
    tx.execute(
        f"UPDATE usage_segments SET {column} = ? WHERE day = ?",  # noqa: S608
        (now_ms, day),
    )


def _delete(keys: str, tx: Transaction) -> None:
    tx.execute(_EMPTY, (keys,))
