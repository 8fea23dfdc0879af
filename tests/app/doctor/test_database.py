"""Databases that are sound, damaged, of another version, or not there; nothing is changed by it."""

import hashlib
import sqlite3
from pathlib import Path

import pytest

from app.doctor.database import WAL_BYTES_LARGE, check_database
from app.doctor.finding import Commands
from app.ledger.checkup import Checkup, check_up
from app.storage.database import DATABASE_NAME
from app.storage.restore_advice import MARKER
from tests.app.doctor.patients import made, problems, seen, spoil, wrong

COMMANDS = Commands(None, None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made(tmp_path / "data")
    return tmp_path / "data"


def test_a_sound_one(data: Path) -> None:
    found = check_up(data / DATABASE_NAME, deep=True)
    assert (found.unreadable, found.refused, found.pages, found.journal) == ("", "", [], "")
    assert (found.audit, found.pages_checked, found.upgrade) == ([], True, 0)
    assert found.entries > 0
    assert found.last_ms is not None
    told = check_database(data / DATABASE_NAME, found, COMMANDS, running=False)
    assert [each.code for each in told] == ["database.ok", "chain.ok"]


def test_looking_changes_nothing(data: Path) -> None:
    def content() -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in data.iterdir()
            if not path.name.endswith("-shm")
        }

    before = content()
    assert seen(data.parent / "config.toml", data, deep=True) == set()
    assert content() == before


def test_none_yet(tmp_path: Path) -> None:
    (told,) = check_database(tmp_path / DATABASE_NAME, None, COMMANDS, running=False)
    assert told.code == "database.none"


def test_a_page_that_was_overwritten(data: Path) -> None:
    path = data / DATABASE_NAME
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 12] = b"\x55" * 4096 * 9
    path.write_bytes(content)
    codes = seen(data.parent / "config.toml", data)
    assert codes & {"database.damaged", "database.unreadable"}
    assert "doctor.failed" not in codes


def test_a_file_that_is_no_database(data: Path) -> None:
    (data / DATABASE_NAME).write_bytes(b"nothing of ours" * 1000)
    found = check_up(data / DATABASE_NAME)
    told = check_database(data / DATABASE_NAME, found, COMMANDS, running=False)
    assert problems(told) == {"database.unreadable"}
    assert "restore" in told[0].fix


def test_an_entry_that_was_changed(data: Path) -> None:
    spoil(data, "UPDATE entries SET amount_nano_usd = amount_nano_usd + 1 WHERE seq = 1")
    assert "chain.broken" in seen(data.parent / "config.toml", data)


def test_sums_that_are_wrong_are_found_by_looking_deep(data: Path) -> None:
    spoil(data, "UPDATE wallets SET credit_nano_usd = credit_nano_usd + 1")
    assert seen(data.parent / "config.toml", data) == set()
    assert seen(data.parent / "config.toml", data, deep=True) == {"ledger.wrong"}


def test_a_database_of_a_newer_program(data: Path) -> None:
    spoil(data, "INSERT INTO schema_migrations VALUES (9999, '9999_later.sql', 'x', 0)")
    assert "database.refused" in seen(data.parent / "config.toml", data)


def test_a_database_of_an_older_program(data: Path) -> None:
    newest = "(SELECT max(version) FROM schema_migrations)"
    spoil(data, f"DELETE FROM schema_migrations WHERE version = {newest}")
    found = check_up(data / DATABASE_NAME, deep=True)
    told = check_database(data / DATABASE_NAME, found, COMMANDS, running=False)
    assert wrong(told) == set()
    assert "upgrades it (1 steps), after a backup" in told[0].text


def test_an_interrupted_restore(data: Path) -> None:
    (data / MARKER).touch()
    assert seen(data.parent / "config.toml", data) == {"database.restore_unfinished"}


def test_a_large_log(data: Path) -> None:
    path = data / DATABASE_NAME
    for running in (True, False):
        small = Checkup(wal_bytes=WAL_BYTES_LARGE)
        assert wrong(check_database(path, small, COMMANDS, running=running)) == set()
        large = Checkup(wal_bytes=WAL_BYTES_LARGE + 1)
        codes = wrong(check_database(path, large, COMMANDS, running=running))
        assert codes == {"database.log_large"}


def test_beside_a_writer_in_the_middle_of_a_transaction(data: Path) -> None:
    writer = sqlite3.connect(data / DATABASE_NAME, isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE ledger_clock SET high_ms = high_ms + 1")
        assert check_up(data / DATABASE_NAME, deep=True).audit == []
        writer.execute("COMMIT")
    finally:
        writer.close()


def test_the_log_of_a_server_that_was_killed_is_read_too(data: Path, tmp_path: Path) -> None:
    writer = sqlite3.connect(data / DATABASE_NAME, isolation_level=None)
    copy = tmp_path / "copy"
    copy.mkdir()
    try:
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("UPDATE ledger_clock SET high_ms = 7")
        for name in (DATABASE_NAME, f"{DATABASE_NAME}-wal"):
            (copy / name).write_bytes((data / name).read_bytes())
    finally:
        writer.close()
    before = (copy / f"{DATABASE_NAME}-wal").read_bytes()
    found = check_up(copy / DATABASE_NAME)
    assert (found.unreadable, found.wal_bytes) == ("", len(before))
    assert (copy / f"{DATABASE_NAME}-wal").read_bytes() == before
