"""Backups as files: whole or not there, private, proven; restores that lose nothing."""

import hashlib
import os
import shutil
import sqlite3
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.config_carried import CARRIED_FILE, CarriedDamaged
from app.errors import AlreadyRunning
from app.storage.archive import BackupFailed, Manifest, read_manifest, unpack
from app.storage.backup import make_backup
from app.storage.lock import DataDirLock
from app.storage.migrate import DatabaseRefused, shipped_migrations
from app.storage.restore import Restored, restore_backup
from app.storage.restore_advice import MARKER, restore_advice
from app.storage.sqlite import SqliteDatabase

NOW_MS = 1_793_664_000_000


@dataclass
class Proven:
    """What a check of a database says, here without one."""

    problems: list[str] = field(default_factory=list)
    entries: int = 7
    calls: int = 3
    chain_head: str = "ab" * 32


def sound(_: Path) -> Proven:
    return Proven()


def unsound(_: Path) -> Proven:
    return Proven(problems=["the books are cooked"])


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """A data directory with a database, and a usage file that belongs to it."""
    folder = tmp_path / "data"
    database = SqliteDatabase(folder / "turnpike.db")
    await database.open()
    await database.write(
        lambda tx: tx.execute(
            "INSERT INTO usage_segments VALUES (20000, 1, 5, ?, 0, 1, NULL)",
            (hashlib.sha256(b"a day").hexdigest(),),
        )
    )
    await database.close()
    (folder / "usage").mkdir(mode=0o700)
    (folder / "usage" / "2024-10-04.db").write_bytes(b"a day")
    (folder / "usage" / "2024-10-05.db.part").write_bytes(b"not yet one")
    return folder


def back_up(data_dir: Path, target: Path, **options: Any) -> Manifest:
    return make_backup(data_dir, target, **{"prove": sound, "now_ms": NOW_MS, **options})


def restore(archive: Path, data_dir: Path, **options: Any) -> Restored:
    return restore_backup(archive, data_dir, **{"prove": sound, "now_ms": NOW_MS, **options})


def days(data_dir: Path) -> list[tuple[int]]:
    connection = sqlite3.connect(data_dir / "turnpike.db")
    found = connection.execute("SELECT day FROM usage_segments").fetchall()
    connection.close()
    return found


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "turnpike.lock"
    }


def test_a_backup_says_what_it_is(data_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "a backup.tar"
    told: list[str] = []
    made = back_up(data_dir, target, progress=lambda what, done, total: told.append(what))
    assert read_manifest(target) == made
    assert (made.format, made.made_at_ms, made.entries, made.calls) == (1, NOW_MS, 7, 3)
    assert list(made.migrations) == [each.name for each in shipped_migrations()]
    assert [member.name for member in made.members] == ["turnpike.db", "usage/2024-10-04.db"]
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a backup.tar", "data"]
    assert list(dict.fromkeys(told)) == ["copying", "verifying the copy", "writing", "reading"]
    with tarfile.open(target) as tar:  # any tar will do to look into it
        assert tar.getnames() == ["turnpike.db", "usage/2024-10-04.db", "manifest.json"]
    assert f"restore '{target}'" in restore_advice(data_dir / "turnpike.db")


def test_nothing_is_overwritten_unless_told(data_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    back_up(data_dir, target)
    with pytest.raises(BackupFailed, match="--force"):
        back_up(data_dir, target)
    back_up(data_dir, target, force=True, now_ms=NOW_MS + 1000)
    assert read_manifest(target).made_at_ms == NOW_MS + 1000
    with pytest.raises(BackupFailed, match="directory"):
        back_up(data_dir, tmp_path, force=True)
    with pytest.raises(BackupFailed, match="does not exist"):
        back_up(data_dir, tmp_path / "nowhere" / "b.tar")


def test_what_does_not_add_up_is_no_backup(data_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    with pytest.raises(BackupFailed, match="the books are cooked"):
        back_up(data_dir, target, prove=unsound)
    (data_dir / "usage" / "2024-10-04.db").write_bytes(b"another day")
    with pytest.raises(BackupFailed, match="usage files"):
        back_up(data_dir, target)
    with pytest.raises(DatabaseRefused, match="no database at"):
        back_up(tmp_path / "empty", target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_restore_puts_everything_in_place(data_dir: Path, tmp_path: Path) -> None:
    target, fresh = tmp_path / "b.tar", tmp_path / "fresh" / "dir"
    back_up(data_dir, target)
    assert restore(target, fresh).put_aside is None
    assert days(fresh) == [(20000,)]
    assert (fresh / "usage" / "2024-10-04.db").read_bytes() == b"a day"
    modes = {path.name: path.stat().st_mode & 0o777 for path in fresh.rglob("*")}
    assert modes == {
        "turnpike.db": 0o600,
        "turnpike.lock": 0o600,
        "usage": 0o700,
        "2024-10-04.db": 0o600,
    }
    assert fresh.stat().st_mode & 0o777 == 0o700


def test_what_was_there_is_put_aside(data_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    back_up(data_dir, target)
    (data_dir / "turnpike.db").write_bytes(b"damaged")
    (data_dir / "turnpike.db-wal").write_bytes(b"its log")
    before = {
        name: data for name, data in everything(data_dir).items() if name != "last-backup.json"
    }
    aside = restore(target, data_dir).put_aside
    again = restore(target, data_dir).put_aside
    assert aside == data_dir / "before-restore-20261103T000000Z"
    assert again == data_dir / "before-restore-20261103T000000Z-2"
    assert everything(aside) == before
    assert aside.stat().st_mode & 0o777 == 0o700
    assert days(data_dir) == [(20000,)]
    assert not (data_dir / "turnpike.db-wal").exists()
    assert not list(data_dir.glob(".restore.*"))


def test_what_a_bundle_carried_comes_back_where_there_is_none(
    data_dir: Path, tmp_path: Path
) -> None:
    target, fresh = tmp_path / "b.tar", tmp_path / "fresh"
    spring, summer = b'{"at_ms": 1}', b'{"at_ms": 2}'
    (data_dir / CARRIED_FILE).write_bytes(spring)
    made = back_up(data_dir, target)
    assert [member.name for member in made.members][-1] == CARRIED_FILE
    assert restore(target, fresh).carried
    assert (fresh / CARRIED_FILE).read_bytes() == spring
    assert (fresh / CARRIED_FILE).stat().st_mode & 0o777 == 0o600
    (data_dir / CARRIED_FILE).write_bytes(summer)
    restored = restore(target, data_dir)
    assert not restored.carried
    assert restored.put_aside is not None
    assert not (restored.put_aside / CARRIED_FILE).exists()
    assert (data_dir / CARRIED_FILE).read_bytes() == summer


def test_what_was_carried_and_is_damaged_is_not_backed_up_but_restored(
    data_dir: Path, tmp_path: Path
) -> None:
    (data_dir / CARRIED_FILE).write_bytes(b'{"at_ms": 1}')
    back_up(data_dir, tmp_path / "b.tar")
    (data_dir / CARRIED_FILE).write_bytes(b'{"at_')
    with pytest.raises(CarriedDamaged, match=r"carried\.json: damaged"):
        back_up(data_dir, tmp_path / "c.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "data"]
    restored = restore(tmp_path / "b.tar", data_dir)
    assert restored.carried
    assert restored.put_aside is not None
    assert (restored.put_aside / CARRIED_FILE).read_bytes() == b'{"at_'
    assert (data_dir / CARRIED_FILE).read_bytes() == b'{"at_ms": 1}'


def test_a_restore_beside_a_server_is_refused(data_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    back_up(data_dir, target)
    before = everything(data_dir)
    with DataDirLock(data_dir), pytest.raises(AlreadyRunning):
        restore(target, data_dir)
    assert everything(data_dir) == before


def test_nothing_changes_before_the_backup_is_proven(data_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.tar"
    back_up(data_dir, target)
    before = everything(data_dir)
    with pytest.raises(BackupFailed, match="the books are cooked"):
        restore(target, data_dir, prove=unsound)
    with pytest.raises(BackupFailed, match="no backup at"):
        restore(tmp_path / "none.tar", data_dir)
    data = bytearray(target.read_bytes())
    for at in (700, len(data) // 2, data.rindex(b'"sha256"') + 14, data.index(b"abab")):
        data[at] ^= 4
        target.write_bytes(data)
        with pytest.raises(BackupFailed):
            restore(target, data_dir)
        data[at] ^= 4
    for length in (0, 100, len(data) // 2, data.index(b'"members"')):
        target.write_bytes(data[:length])
        with pytest.raises(BackupFailed):
            restore(target, data_dir)
    assert everything(data_dir) == before


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "usage/../../evil", "usage/.hidden", "x/y"]
)
def test_names_that_lead_elsewhere_are_refused(data_dir: Path, tmp_path: Path, name: str) -> None:
    target, folder = tmp_path / "b.tar", tmp_path / "out"
    back_up(data_dir, target)
    evil = tmp_path / "evil.tar"
    with tarfile.open(target) as tar, tarfile.open(evil, "w") as other:
        for header in tar:
            file = tar.extractfile(header)
            assert file is not None
            data = file.read()
            if header.name == "manifest.json":
                data = data.replace(b"usage/2024-10-04.db", name.encode())
                header.size = len(data)
                path = tmp_path / "said"
                path.write_bytes(data)
                with path.open("rb") as said:
                    other.addfile(header, said)
                continue
            header.name = name if header.name.startswith("usage") else header.name
            file.seek(0)
            other.addfile(header, file)
    folder.mkdir()
    with pytest.raises(BackupFailed, match="does not belong"):
        unpack(evil, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("moves", range(6))
async def test_an_interrupted_restore_keeps_the_server_from_starting(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """However far the moves came: refused until the restore was run again, and nothing is lost."""
    target = tmp_path / "b.tar"
    back_up(data_dir, target)
    (data_dir / "turnpike.db-wal").write_bytes(b"")
    left = [moves]
    real_rename, real_replace = Path.rename, Path.replace

    def counted(real: Any) -> Any:
        def move(self: Path, other: Path) -> Path:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            return real(self, other)  # type: ignore[no-any-return]

        return move

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", counted(real_rename))
        patched.setattr(Path, "replace", counted(real_replace))
        try:
            restore(target, data_dir)
        except KeyboardInterrupt:
            assert (data_dir / MARKER).exists()
            with pytest.raises(DatabaseRefused, match="interrupted"):
                await SqliteDatabase(data_dir / "turnpike.db").open()
        else:
            assert moves == 5
    restore(target, data_dir)
    assert days(data_dir) == [(20000,)]
    assert "turnpike.db" in {
        name.rpartition("/")[2] for name in everything(data_dir) if "/" in name
    }


async def test_a_backup_of_an_older_program_is_brought_up_to_date(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "b.tar"
    older = shipped_migrations()[:-1]
    (data_dir / "turnpike.db").unlink()
    with monkeypatch.context() as patched:
        for room in ("sqlite", "read_only"):
            patched.setattr(f"app.storage.{room}.shipped_migrations", lambda: older)
        database = SqliteDatabase(data_dir / "turnpike.db")
        await database.open()
        await database.close()
        back_up(data_dir, target)
        assert list(read_manifest(target).migrations) == [each.name for each in older]
    shutil.rmtree(data_dir)
    restore(target, data_dir)
    await _opens(data_dir)
    with monkeypatch.context() as patched:
        back_up(data_dir, target, force=True)
        patched.setattr("app.storage.restore.shipped_migrations", lambda: older)
        with pytest.raises(BackupFailed, match="another form"):
            restore(target, tmp_path / "fresh")


async def _opens(data_dir: Path) -> None:
    database = SqliteDatabase(data_dir / "turnpike.db")
    await database.open()
    await database.close()


async def test_a_damaged_database_is_refused_with_the_way_back(
    data_dir: Path, tmp_path: Path
) -> None:
    path = data_dir / "turnpike.db"
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 4] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(DatabaseRefused, match=r"turnpike --data-dir .* restore BACKUP"):
        await SqliteDatabase(path).open()
    data[:4096] = os.urandom(4096)
    path.write_bytes(data)
    with pytest.raises(DatabaseRefused, match=r"cannot be opened.*restore BACKUP"):
        await SqliteDatabase(path).open()


async def test_a_large_database_starts_without_the_check_of_every_page(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.storage.sqlite.QUICK_CHECK_BYTES_MAX", 4096)
    with caplog.at_level("INFO"):
        await _opens(data_dir)
    assert "not all checked" in caplog.text
