"""The folder of the backups: what is whose, how many stay, and that nothing else is touched."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage import backup_folder
from app.storage.archive import BackupFailed, Manifest, write_archive
from app.storage.backup_folder import BackupFolder, identity_of
from app.storage.migrate import DatabaseRefused
from app.storage.sqlite import SqliteDatabase
from tests.app.ledger.books import HandClock

NOW_MS = 1_793_664_000_000
DAY_MS = 86_400_000
OURS, THEIRS = "0123abcd", "99999999"


def archive(path: Path, at_ms: int) -> Path:
    """A backup, as far as a folder looks at it."""
    source = path.with_suffix(".source")
    source.write_bytes(b"a database")
    manifest = Manifest(
        format=1,
        program_version="0.1.0",
        made_at_ms=at_ms,
        migrations={},
        entries=0,
        calls=0,
        chain_head="",
        members=[],
    )
    write_archive(path, manifest, [("turnpike.db", source)], lambda *_: None)
    source.unlink()
    return path


def made(folder: BackupFolder, at_ms: int) -> Path:
    return archive(folder.target(at_ms), at_ms)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_name_says_what_it_is(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path, OURS)
    assert folder.target(NOW_MS).name == "turnpike-0123abcd-20261103T000000Z.tar"
    before = folder.target_before(NOW_MS, 7, "0.1.0")
    assert before.name == (
        "turnpike-0123abcd-20261103T000000Z-before-upgrade-from-0.1.0-schema-7.tar"
    )
    assert folder.target_before(NOW_MS, 7, None).name.endswith("Z-before-upgrade-schema-7.tar")
    strange = folder.target_before(NOW_MS, 7, "../0+local build")
    assert strange.parent == tmp_path
    archive(strange, NOW_MS)
    assert [each.kind for each in folder.kept()] == ["before upgrade"]


def test_what_is_there_is_listed_newest_first(tmp_path: Path) -> None:
    ours, theirs = BackupFolder(tmp_path, OURS), BackupFolder(tmp_path, THEIRS)
    made(ours, NOW_MS)
    made(theirs, NOW_MS + DAY_MS)
    archive(tmp_path / "mine.tar", NOW_MS - DAY_MS)
    archive(ours.target_before(NOW_MS + 2 * DAY_MS, 7, "0.1.0"), NOW_MS + 2 * DAY_MS)
    (tmp_path / "other.tar").write_bytes(b"no backup")
    (tmp_path / "folder.tar").mkdir()
    assert [(each.kind, each.own) for each in ours.kept()] == [
        ("before upgrade", True),
        ("scheduled", False),
        ("scheduled", True),
        ("by hand", False),
    ]
    assert ours.newest_ms() == NOW_MS
    assert BackupFolder(tmp_path / "none", OURS).kept() == []
    assert BackupFolder(tmp_path / "none", OURS).newest_ms() is None


@given(
    days=st.lists(st.integers(0, 40), unique=True, min_size=1, max_size=7),
    keep=st.integers(1, 5),
    data=st.data(),
)
def test_only_the_oldest_of_ones_own_go(
    tmp_path_factory: pytest.TempPathFactory, days: list[int], keep: int, data: st.DataObject
) -> None:
    """Whatever the order in which they were made: the one just made stays, and everything that is
    not of its kind; and as many stay as are to be kept."""
    place = tmp_path_factory.mktemp("folder")
    ours, theirs = BackupFolder(place, OURS), BackupFolder(place, THEIRS)
    others = [
        archive(place / "mine.tar", NOW_MS),
        made(theirs, NOW_MS),
        archive(ours.target_before(NOW_MS, 7, None), NOW_MS),
    ]
    own = [made(ours, NOW_MS + day * DAY_MS) for day in days]
    just = data.draw(st.sampled_from(own))
    gone = ours.retain(just, keep)
    left = {place / name for name in names(place)}
    assert set(others) | {just} <= left
    assert len(left) == len(others) + min(keep, len(own))
    survivors = sorted(set(own) - set(gone) - {just})
    assert all(old.name < new.name for old in gone for new in survivors)


def test_what_only_has_the_name_of_a_backup_stays(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path, OURS)
    strange = folder.target(NOW_MS)
    strange.write_bytes(b"notes")
    linked = folder.target(NOW_MS + DAY_MS)
    linked.symlink_to(archive(tmp_path / "mine.tar", NOW_MS))
    old, just = made(folder, NOW_MS + 2 * DAY_MS), made(folder, NOW_MS + 3 * DAY_MS)
    assert folder.retain(just, 1) == [old]
    assert strange.exists()
    assert linked.exists()


def test_leftovers_go_once_nobody_writes_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = BackupFolder(tmp_path, OURS)
    left = tmp_path / f".{folder.target(NOW_MS).name}.abc.tmp"
    theirs = tmp_path / f".{BackupFolder(tmp_path, THEIRS).target(NOW_MS).name}.abc.tmp"
    other = tmp_path / ".turnpike.tmp"
    for path in (left, theirs, other):
        path.mkdir()
        (path / "turnpike.db").write_bytes(b"half")
    assert folder.sweep() == [], "it may be somebody's who is at work"
    long_ago = time.time() - backup_folder.LEFTOVER_AGE_S - 1
    for path in (left, theirs, other):
        os.utime(path, (long_ago, long_ago))
    assert folder.sweep() == [], "a file in it was written to just now"
    os.utime(left / "turnpike.db", (long_ago, long_ago))
    assert folder.sweep() == [left]
    assert names(tmp_path) == sorted([theirs.name, other.name])


def test_a_folder_above_that_is_missing_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="Mount its disk"):
        BackupFolder(tmp_path / "disk" / "backups", OURS).make()
    folder = BackupFolder(tmp_path / "backups", OURS)
    folder.make()
    folder.make()
    assert (tmp_path / "backups").stat().st_mode & 0o777 == 0o700


async def test_a_database_keeps_its_identity(tmp_path: Path) -> None:
    for name, at_ms in (("a", NOW_MS), ("b", NOW_MS + 1)):
        database = SqliteDatabase(tmp_path / name / "turnpike.db", HandClock(at_ms))
        await database.open()
        await database.close()
    first = identity_of(tmp_path / "a")
    assert len(first) == 8
    assert first == identity_of(tmp_path / "a") != identity_of(tmp_path / "b")
    with pytest.raises(DatabaseRefused, match="no database"):
        identity_of(tmp_path / "c")
