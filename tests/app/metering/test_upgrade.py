"""A database and a day's file of before calls were measured in characters, sound and video."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from app.ledger.audit import Audit, audit_file
from app.ledger.chain import HEAD
from app.metering.closing import close_months
from app.metering.segments import FOLDER, Segments
from app.metering.usage import UsageLog, UsageSummary
from app.storage import day_file
from app.storage.backup import make_backup
from app.storage.migrate import migrate, shipped_migrations
from app.storage.restore import restore_backup
from tests.app.ledger.books import PRO, START_MS, Books, HandStandings, hold, opened, used
from tests.app.metering.rig import DAY_MS, HOUR_MS

BEFORE = 7
OLD_COLUMNS = (
    "at_ms, call_id, series_id, streamed, attempts, input_tokens, cache_read_tokens,"
    " cache_write_tokens, output_tokens, reasoning_tokens, audio_input_tokens,"
    " audio_output_tokens, images, compute_ns, estimated, latency_ms, first_token_ms,"
    " cost_nano_usd, provider_cost_nano_usd, paid_from"
)
OLD_SUMS = "3, 30, 0, 0, 15, 0, 0, 0, 3, 27, 0"  # of three calls
FILED_MS = START_MS - 3 * DAY_MS
KEPT_MS = START_MS


def _old_row(at_ms: int, number: int) -> tuple[object, ...]:
    measured = (10, 0, 0, 5, 0, 0, 0, 1, 9)
    return (at_ms + number, f"old-{at_ms}-{number}", 3, 0, 1, *measured, 0, 12, None, 0, None, "")


def _old_data(folder: Path) -> None:
    """Six calls that cost nothing: three in the table, three in the file of a day before."""
    folder.mkdir()
    (folder / FOLDER).mkdir()
    marks = ", ".join("?" * 20)
    part, path = folder / FOLDER / "x.part", folder / FOLDER / "2026-10-31.db"
    with closing(sqlite3.connect(part, isolation_level=None)) as file:
        file.execute(f"CREATE TABLE usage ({OLD_COLUMNS}, PRIMARY KEY (at_ms, call_id))")
        file.execute(f"CREATE TABLE series ({day_file.SERIES_COLUMNS}, PRIMARY KEY (id))")
        file.executemany(
            f"INSERT INTO usage VALUES ({marks})", [_old_row(FILED_MS, at) for at in range(3)]
        )
    _, size, digest = day_file.finish(part, path, 3)
    with closing(sqlite3.connect(folder / "turnpike.db", isolation_level=None)) as connection:
        old = [each for each in shipped_migrations() if each.version <= BEFORE]
        assert len(migrate(connection, old, 0)) == BEFORE
        who = "user_ann", "key_1", "user_ann"
        connection.executemany(
            "INSERT INTO series (id, coarse_id, party_id, user_id, key_id, payer_id, group_id,"
            " model, provider, outcome, byok) VALUES (?, ?, ?, ?, ?, ?, '', ?, ?, ?, 0)",
            [
                (1, 1, 0, "", "", "", "acme/tiny", "mock", "completed"),
                (2, 0, 0, *who, "", "", ""),
                (3, 1, 2, *who, "acme/tiny", "mock", "completed"),
            ],
        )
        connection.executemany(
            f"INSERT INTO usage VALUES ({marks})", [_old_row(KEPT_MS, at) for at in range(3)]
        )
        connection.executemany(
            "INSERT INTO settlements (call_id, payer_id, period, state, held_nano_usd,"
            " cost_nano_usd, overrun_nano_usd, lost_nano_usd, ended_at_ms)"
            " VALUES (?, 'user_ann', ?, 'settled', 0, 0, 0, 0, 0)",
            [
                (f"old-{at_ms}-{number}", period)
                for at_ms, period in ((FILED_MS, "2026-10"), (KEPT_MS, "2026-11"))
                for number in range(3)
            ],
        )
        for at_ms, times in ((FILED_MS, 1), (KEPT_MS, 2)):
            day = at_ms // DAY_MS
            for series in (1, 3):
                for table, at in (
                    ("usage_hours", (at_ms // HOUR_MS, series)),
                    ("usage_days", (series, day)),
                ):
                    connection.execute(f"INSERT INTO {table} VALUES (?, ?, {OLD_SUMS})", at)
            running = ", ".join(str(int(each) * times) for each in OLD_SUMS.split(", "))
            connection.execute(f"INSERT INTO usage_parties VALUES (2, ?, {running})", (day,))
        connection.execute(
            "INSERT INTO usage_segments VALUES (?, 3, ?, ?, 0, 1, NULL)",
            (FILED_MS // DAY_MS, size, digest),
        )


@asynccontextmanager
async def _open(folder: Path) -> AsyncIterator[tuple[Books, UsageLog, Segments]]:
    async with opened(folder / "turnpike.db", standings=HandStandings(PRO)) as books:
        segments = Segments(folder, books.database, books.clock)
        yield books, UsageLog(books.database, segments), segments


def _measured(line: UsageSummary) -> tuple[int, ...]:
    return (line.calls, line.input_tokens, line.images, line.characters, line.audio_ms)


async def _spoken(books: Books) -> None:
    """Two calls: one on the day of the old ones, by the same caller at the same offer."""
    for at_ms in (KEPT_MS, KEPT_MS + DAY_MS):
        request = hold(100, admitted_at_ms=at_ms)
        await books.ledger.place_hold(request)
        row = used(request.call_id, at_ms=at_ms, characters=70, audio_ms=9, video_ms=2)
        await books.ledger.settle_hold(request.call_id, 0, row)


async def test_what_was_not_measured_is_0_and_what_follows_adds_up(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    _old_data(folder)
    async with _open(folder) as (books, log, _):
        assert (await books.audit()).problems == []
        found = await log.rows()
        assert [call.characters + call.audio_ms + call.video_ms for call in found] == [0] * 6
        assert [call.images for call in found] == [1] * 6
        await _spoken(books)
        assert (await books.audit()).problems == []
        for by in ("model", "user", "key", "outcome"):
            (line,) = (await log.summary([by])).data
            assert _measured(line) == (8, 80, 6, 140, 18)
            assert line.video_ms == 4
        days = [_measured(line) for line in (await log.summary(["day"])).data]
        assert days == [(3, 30, 3, 0, 0), (4, 40, 3, 70, 9), (1, 10, 0, 70, 9)]
        # A range that cuts an hour of the old file and one of the table.
        cut = (await log.summary(["model"], FILED_MS + 1, KEPT_MS + 1)).data
        assert [_measured(line) for line in cut] == [(4, 40, 3, 70, 9)]


async def test_days_and_months_that_end_later_hold_the_new_quantities(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    _old_data(folder)
    async with _open(folder) as (books, log, segments):
        await _spoken(books)
        december = START_MS + 40 * DAY_MS
        books.clock.ms = december
        await books.database.write(
            lambda tx: tx.execute("UPDATE ledger_clock SET high_ms = ?", (december,))
        )
        assert len(await close_months(books.database, books.clock)) == 2
        assert await segments.seal() == [KEPT_MS // DAY_MS, KEPT_MS // DAY_MS + 1]
        (line,) = (await log.summary(["model", "user"])).data
        assert _measured(line) == (8, 80, 6, 140, 18)
        assert sorted(call.characters for call in await log.rows()) == [0] * 6 + [70] * 2
        assert (await books.audit()).problems == []


def _proven_then(_: Path) -> Audit:
    """What that program's audit says of the six calls; this one's asks for tables of its own."""
    return Audit(problems=[], entries=0, calls=6, open_holds=0, house={}, chain_head=HEAD.hex())


@pytest.mark.parametrize("upgraded", [False, True])
async def test_a_backup_restores_to_the_same(tmp_path: Path, upgraded: bool) -> None:
    folder, target, fresh = tmp_path / "data", tmp_path / "b.tar", tmp_path / "fresh"
    _old_data(folder)
    with pytest.MonkeyPatch.context() as patched:
        if upgraded:
            async with _open(folder) as (books, _, _):
                await _spoken(books)
        else:  # made by the program of that time
            old = [each for each in shipped_migrations() if each.version <= BEFORE]
            patched.setattr("app.storage.read_only.shipped_migrations", lambda: old)
        make_backup(folder, target, prove=audit_file if upgraded else _proven_then, now_ms=0)
    restore_backup(target, fresh, prove=audit_file, now_ms=0)
    async with _open(fresh) as (books, log, _):
        assert (await books.audit()).problems == []
        (line,) = (await log.summary(["user"])).data
        assert _measured(line) == ((8, 80, 6, 140, 18) if upgraded else (6, 60, 6, 0, 0))
        assert len(await log.rows()) == line.calls
