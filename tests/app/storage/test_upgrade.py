"""Before an upgrade: a backup that is proven by a trial; without one nothing begins."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from app.storage import upgrade
from app.storage.archive import Progress, read_manifest
from app.storage.migrate import DatabaseRefused, Migration, migrate, shipped_migrations
from app.storage.sqlite import SqliteDatabase
from app.storage.upgrade import Upgrade
from tests.app.ledger.books import START_MS, HandClock
from tests.app.storage.test_backup import Proven, sound, unsound

OLD = 9
DAY_MS = 86_400_000


def old_database(folder: Path, program: str = "0.0.9") -> Path:
    """A data directory of an older program."""
    folder.mkdir(mode=0o700)
    with closing(sqlite3.connect(folder / "turnpike.db", isolation_level=None)) as connection:
        migrate(connection, shipped_migrations()[:OLD], START_MS, program)
    return folder


def schema(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT max(version) FROM schema_migrations").fetchone()[0])


async def start(folder: Path, safely: Upgrade, at_ms: int = START_MS) -> None:
    database = SqliteDatabase(folder / "turnpike.db", HandClock(at_ms), safely)
    await database.open()
    await database.close()


async def test_the_backup_is_of_the_database_as_it_was(tmp_path: Path) -> None:
    data_dir, backups = old_database(tmp_path / "data"), tmp_path / "backups"
    told: list[str] = []
    tried: list[int] = []

    def prove(copy: Path) -> Proven:
        tried.append(schema(copy))
        return sound(copy)

    @contextmanager
    def watch(begun: str) -> Iterator[Progress]:
        told.append(begun)
        yield lambda what, _done, _total: told.append(what)
        told.append("over")

    safely = Upgrade(data_dir, backups, prove=prove, watch=watch)
    for _ in range(2):
        await start(data_dir, safely)
    newest = len(shipped_migrations())
    assert tried == [newest], "what was proven is what the upgrade makes of it"
    (made,) = backups.iterdir()
    assert "from-0.0.9-schema-9" in made.name
    assert len(read_manifest(made).migrations) == OLD
    assert schema(data_dir / "turnpike.db") == newest
    assert told[0].startswith("Upgrading the database from version 0.0.9 (schema 9)")
    assert list(dict.fromkeys(told))[-2:] == ["upgrading", "over"]
    assert told.count("over") == 1


async def test_a_new_database_is_not_backed_up(tmp_path: Path) -> None:
    safely = Upgrade(tmp_path / "data", tmp_path / "backups", prove=unsound)
    await start(tmp_path / "data", safely)
    assert not (tmp_path / "backups").exists()


async def test_the_newest_few_stay(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    (backups / "turnpike-mine.tar").write_bytes(b"of somebody")
    template = old_database(tmp_path / "template")
    for day in range(upgrade.KEPT + 2):
        data_dir = tmp_path / f"data-{day}"
        shutil.copytree(template, data_dir)
        await start(data_dir, Upgrade(data_dir, backups, prove=sound), START_MS + day * DAY_MS)
    kept = sorted(path.name for path in backups.glob("*before-upgrade*"))
    assert len(kept) == upgrade.KEPT
    assert "20261107T" in kept[-1]
    assert (backups / "turnpike-mine.tar").exists()


@pytest.mark.parametrize("why", ["unsound", "no folder", "no room", "bad migration"])
async def test_without_it_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    data_dir, backups = old_database(tmp_path / "data"), tmp_path / "backups"
    expected = {
        "unsound": "the books are cooked",
        "no folder": "Mount its disk",
        "no room": "MiB free, and about",
        "bad migration": "no such table: nowhere",
    }[why]
    if why == "no folder":
        backups = tmp_path / "disk" / "backups"
    if why == "no room":
        monkeypatch.setattr(upgrade, "_ROOM_BYTES", 1 << 60)
    if why == "bad migration":
        bad = Migration(99, "0099_bad.sql", "INSERT INTO nowhere VALUES (1);\n")
        for room in ("sqlite", "upgrade"):
            monkeypatch.setattr(
                f"app.storage.{room}.shipped_migrations", lambda: [*shipped_migrations(), bad]
            )
    prove = unsound if why == "unsound" else sound
    with pytest.raises(DatabaseRefused, match=expected) as refusal:
        await start(data_dir, Upgrade(data_dir, backups, prove=prove))
    said = refusal.value.message
    assert "has not begun" in said
    assert "Nothing was changed" in said
    assert "Turnpike 0.0.9 goes on working with it" in said
    assert schema(data_dir / "turnpike.db") == OLD
    assert not backups.exists() or list(backups.iterdir()) == []
