"""The SQLite file: units in groups, reads beside them, one connection that writes."""

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.errors import Conflict
from app.storage import writer
from app.storage.database import LedgerUnavailable, Row, Transaction
from app.storage.migrate import DatabaseRefused
from app.storage.sqlite import SqliteDatabase
from tests.app.ledger.books import statement


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(tmp_path / "data" / "turnpike.db")
    await opened.open()
    await opened.write(lambda tx: tx.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT)"))
    yield opened
    await opened.close()


def insert(n: int) -> Callable[[Transaction], list[Row]]:
    return lambda tx: tx.execute("INSERT INTO t VALUES (?, 'x')", (n,))


async def test_a_unit_is_durable_and_read_back(database: SqliteDatabase) -> None:
    assert await database.write(lambda tx: tx.execute("INSERT INTO t VALUES (1, 'a')")) == []
    assert await database.read("SELECT n, s FROM t WHERE n = ?", (1,)) == [(1, "a")]


async def test_a_unit_that_raises_changes_nothing_and_disturbs_nobody(
    database: SqliteDatabase,
) -> None:
    def fails(tx: Transaction) -> None:
        tx.execute("INSERT INTO t VALUES (100, 'half')")
        raise Conflict("no")

    def mistakes(tx: Transaction) -> None:
        tx.execute("INSERT INTO t VALUES (101, 'half')")
        tx.execute("INSERT INTO no_such_table VALUES (1)")

    def breaks(tx: Transaction) -> None:
        tx.execute("INSERT INTO t VALUES (102, 'half')")
        tx.execute("INSERT INTO t VALUES (102, 'again')")

    def add(n: int) -> asyncio.Task[list[Row]]:
        return asyncio.create_task(database.write(insert(n)))

    units = [fails, mistakes, breaks]
    neighbours = [add(n) for n in range(3)]
    bad = [asyncio.create_task(database.write(unit)) for unit in units]
    neighbours += [add(n) for n in range(3, 6)]
    errors = await asyncio.gather(*bad, return_exceptions=True)
    await asyncio.gather(*neighbours)
    assert [type(each) for each in errors] == [
        Conflict,
        sqlite3.OperationalError,
        sqlite3.IntegrityError,
    ]
    assert await database.read("SELECT n FROM t ORDER BY n") == [(n,) for n in range(6)]
    assert database.failed is None


async def test_a_unit_that_leaves_the_transaction_stops_the_writer(
    database: SqliteDatabase,
) -> None:
    with pytest.raises(LedgerUnavailable):
        await database.write(lambda tx: tx.execute("COMMIT"))
    assert database.failed is not None
    with pytest.raises(LedgerUnavailable):
        await database.write(lambda tx: tx.execute("SELECT 1"))


async def test_what_waits_is_committed_together(
    database: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    commit = writer.Writer._commit

    def counted(self: writer.Writer, group: list[writer._Work]) -> None:
        lengths.append(len(group))
        commit(self, group)

    monkeypatch.setattr(writer.Writer, "_commit", counted)
    units = [database.write(insert(n)) for n in range(1500)]
    await asyncio.gather(*units)
    assert sum(lengths) == 1500
    assert len(lengths) <= 4
    assert max(lengths) <= writer.GROUP_LENGTH_MAX


async def test_units_run_on_one_thread_that_is_not_the_callers(database: SqliteDatabase) -> None:
    names = {await database.write(lambda tx: threading.current_thread().name) for _ in range(3)}
    assert names == {"turnpike-writer"}


async def test_cancelling_a_writer_does_not_stop_the_write(database: SqliteDatabase) -> None:
    writing = asyncio.create_task(
        database.write(lambda tx: tx.execute("INSERT INTO t VALUES (7, 'kept')"))
    )
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await database.write(lambda tx: None)
    assert await database.read("SELECT s FROM t") == [("kept",)]


async def test_commits_reach_the_disk_and_only_the_writer_checkpoints(
    database: SqliteDatabase,
) -> None:
    pragmas = ("journal_mode", "synchronous", "wal_autocheckpoint", "foreign_keys")
    writing = [await database.write(statement(f"PRAGMA {name}")) for name in pragmas]
    assert writing == [[("wal",)], [(2,)], [(0,)], [(1,)]]  # 2 is FULL
    for _ in range(6):
        assert await database.read("PRAGMA wal_autocheckpoint") == [(0,)]


async def test_readers_cannot_write(database: SqliteDatabase) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.read("INSERT INTO t VALUES (1, 'a')")


async def test_cancelled_reads_leave_the_readers_usable(database: SqliteDatabase) -> None:
    slow = (
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 200000)"
        " SELECT count(*) FROM c"
    )
    reading = [asyncio.create_task(database.read(slow)) for _ in range(6)]
    await asyncio.sleep(0.005)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    answers = await asyncio.gather(*(database.read("SELECT 1") for _ in range(10)))
    assert answers == [[(1,)]] * 10


async def test_readers_never_see_half_a_group(database: SqliteDatabase) -> None:
    await database.write(lambda tx: tx.execute("INSERT INTO t VALUES (1, '0'), (2, '0')"))

    async def change(n: int) -> None:
        def unit(tx: Transaction) -> None:
            tx.execute("UPDATE t SET s = ? WHERE n = 1", (str(n),))
            tx.execute("UPDATE t SET s = ? WHERE n = 2", (str(n),))

        await database.write(unit)

    async def look() -> None:
        for _ in range(50):
            ((distinct,),) = await database.read("SELECT count(DISTINCT s) FROM t")
            assert distinct == 1

    await asyncio.gather(look(), look(), *(change(n) for n in range(200)))


async def test_files_are_for_their_owner_alone(database: SqliteDatabase, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert files == {f"turnpike.db{end}": 0o600 for end in ("", "-wal", "-shm")}


async def test_the_wal_stays_small_under_load_and_is_gone_after_close(tmp_path: Path) -> None:
    path = tmp_path / "turnpike.db"
    database = SqliteDatabase(path)
    await database.open()
    await database.write(lambda tx: tx.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT)"))
    fill = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000)"
    fill += " INSERT INTO t (s) SELECT hex(randomblob(200)) FROM c"
    for _ in range(60):
        await database.write(lambda tx: tx.execute(fill))
    assert path.stat().st_size > 40_000_000
    assert (tmp_path / "turnpike.db-wal").stat().st_size < 24_000_000
    await database.close()
    assert os.listdir(tmp_path) == ["turnpike.db"]


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "turnpike.db"
    path.write_bytes(b"this is not a database, but long enough to be looked at" * 100)
    with pytest.raises(DatabaseRefused, match="cannot be opened: file is not a database"):
        await SqliteDatabase(path).open()


async def test_an_impossible_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseRefused, match="cannot be opened"):
        await SqliteDatabase(tmp_path / "file" / "turnpike.db").open()


async def test_closing_twice_and_closing_unopened_are_fine(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "turnpike.db")
    await database.close()
    with pytest.raises(LedgerUnavailable):
        await database.read("SELECT 1")
    await database.open()
    await database.close()
    await database.close()
