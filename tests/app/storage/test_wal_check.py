"""What a power cut leaves of the write-ahead log is taken over; what damage leaves is refused."""

import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from app.storage.database import Transaction
from app.storage.migrate import DatabaseRefused
from app.storage.sqlite import SqliteDatabase
from app.storage.wal_check import damage, read_log, taken_over

COMMITS = 6
FRAME = 24 + 4096


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A database whose writer died: six commits are in its log, and nowhere else."""
    live, copy = tmp_path / "live.db", tmp_path / "copy.db"
    with closing(sqlite3.connect(live, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA wal_autocheckpoint=0")
        database.execute("CREATE TABLE notes (text TEXT)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for number in range(COMMITS):
            database.execute("INSERT INTO notes VALUES (?)", ("x" * 3000 + str(number),))
        for suffix in ("", "-wal"):
            shutil.copy(f"{live}{suffix}", f"{copy}{suffix}")
    return copy


def overwrite(database: Path, at: int, data: bytes = b"\x55" * 64) -> None:
    with Path(f"{database}-wal").open("r+b") as file:
        file.seek(at)
        file.write(data)


def at_frame(number: int) -> int:
    """Somewhere in that frame's page, counted from 1."""
    return 32 + (number - 1) * FRAME + 2000


def rows(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        found: int = connection.execute("SELECT count(*) FROM notes").fetchone()[0]
        return found


def test_a_whole_log_is_taken_over(killed: Path) -> None:
    found = read_log(killed)
    assert len(found.commits) == COMMITS
    assert taken_over(killed) == found.frames == found.commits[-1]
    assert damage(found, found.frames) is None
    assert Path(f"{killed}-wal").exists(), "looking changes nothing"
    assert rows(killed) == COMMITS


def test_the_torn_last_commit_is_no_damage(killed: Path) -> None:
    found = read_log(killed)
    overwrite(killed, at_frame(found.frames))
    assert taken_over(killed) < found.frames
    assert damage(read_log(killed), taken_over(killed)) is None
    assert rows(killed) == COMMITS - 1


@pytest.mark.parametrize("commit", range(COMMITS - 1))
def test_commits_behind_a_bad_frame_are_damage(killed: Path, commit: int) -> None:
    found = read_log(killed)
    overwrite(killed, at_frame(found.commits[commit]))
    problem = damage(read_log(killed), taken_over(killed))
    assert problem is not None
    assert f"{COMMITS - commit} transactions" in problem


def test_a_header_that_is_not_what_was_written_is_damage(killed: Path) -> None:
    overwrite(killed, 16, b"salt")
    found = read_log(killed)
    assert damage(found, 0) == "the header of its write-ahead log is not what was written"


@pytest.mark.parametrize("log", [None, b"", bytes(32), bytes(9000)])
def test_no_log_and_an_empty_one_are_nothing(tmp_path: Path, log: bytes | None) -> None:
    if log is not None:
        (tmp_path / "a.db-wal").write_bytes(log)
    found = read_log(tmp_path / "a.db")
    assert (found.frames, found.sound) == (0, True)
    assert damage(found, 0) is None


def test_frames_of_a_log_before_this_one_do_not_count(killed: Path) -> None:
    with closing(sqlite3.connect(killed, isolation_level=None)) as database:
        database.execute("PRAGMA wal_checkpoint(RESTART)")
        database.execute("INSERT INTO notes VALUES ('anew')")
        kept = killed.with_name("kept.db")
        for suffix in ("", "-wal"):
            shutil.copy(f"{killed}{suffix}", f"{kept}{suffix}")
    found = read_log(kept)
    assert len(found.commits) == 1
    assert taken_over(kept) == found.frames
    assert damage(found, found.frames) is None


def add_user(number: int, unit: Transaction) -> None:
    sql = "INSERT INTO users (id, name, tier, role, created_at_ms) VALUES (?, ?, ?, ?, ?)"
    unit.execute(sql, (f"u{number}", f"n{number}", "free", "member", 1))


async def test_a_start_refuses_each_time_and_leaves_everything_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "turnpike.db"
    database = SqliteDatabase(path)
    await database.open()
    try:
        kept = tmp_path / "kept"
        kept.mkdir()
        for number in range(COMMITS):
            await database.write(partial(add_user, number))
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", kept / f"turnpike.db{suffix}")
    finally:
        await database.close()
    found = read_log(kept / "turnpike.db")
    overwrite(kept / "turnpike.db", at_frame(found.commits[-3]))
    spoilt = [(kept / f"turnpike.db{suffix}").read_bytes() for suffix in ("", "-wal")]
    for _ in range(2):
        with pytest.raises(DatabaseRefused, match=r"write-ahead log is damaged.*restore"):
            await SqliteDatabase(kept / "turnpike.db").open()
        left = [(kept / f"turnpike.db{suffix}").read_bytes() for suffix in ("", "-wal")]
        assert left == spoilt
