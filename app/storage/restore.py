"""Puts a backup in the place of a data directory's database, which is put aside and never deleted.

Between the first and the last move a marker says that a restore is under way: a server that finds
it refuses to start, and another restore begins anew. So however it is interrupted, no mixture of
the old and the new is ever served.
"""

import os
import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from app.config_carried import CARRIED_FILE, CarriedDamaged, read_carried
from app.errors import ConfigError
from app.storage.archive import (
    SEGMENTS,
    BackupFailed,
    Manifest,
    Progress,
    sync_directory,
    unpack,
    untold,
)
from app.storage.backup import Prove, check_integrity
from app.storage.database import DATABASE_NAME
from app.storage.lock import DataDirLock
from app.storage.migrate import migrate, shipped_migrations
from app.storage.restore_advice import MARKER

# What belongs to a database: the write-ahead log first of all, or it would be lost with the file.
_PARTS = (DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", SEGMENTS)


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore did. ``put_aside`` is where the database before it lies now, if there was.
    ``carried``: what a bundle had carried came back too.
    """

    manifest: Manifest
    put_aside: Path | None
    carried: bool


def restore_backup(
    archive: Path,
    data_dir: Path,
    *,
    prove: Prove,
    now_ms: int,
    progress: Progress = untold,
) -> Restored:
    """Verify a backup and put it in place. The directory is made where it is missing.

    Raises AlreadyRunning while a server or a command works on the directory, BackupFailed,
    DatabaseRefused, ConfigError, OSError. Before the first move nothing has changed then.
    """
    if not archive.is_file():
        raise BackupFailed(f"There is no backup at {archive}.")
    with DataDirLock(data_dir):
        work = Path(tempfile.mkdtemp(prefix=".restore.", suffix=".tmp", dir=data_dir))
        try:
            manifest = unpack(archive, work, progress)
            _bring_up_to_date(work / DATABASE_NAME, manifest, archive, now_ms)
            progress("verifying", 0, 0)
            check_integrity(work / DATABASE_NAME)
            proof = prove(work / DATABASE_NAME)
            if proof.problems:
                raise BackupFailed(f"The backup does not add up: {'; '.join(proof.problems[:3])}.")
            if (proof.entries, proof.chain_head) != (manifest.entries, manifest.chain_head):
                raise BackupFailed(f"{archive} holds another journal than it says.")
            put_aside, carried = _swap(work, data_dir, now_ms)
            return Restored(manifest=manifest, put_aside=put_aside, carried=carried)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _bring_up_to_date(database: Path, manifest: Manifest, archive: Path, now_ms: int) -> None:
    """Migrate the unpacked database of an older program; that of a newer one is refused."""
    shipped = {migration.name: migration.sha256 for migration in shipped_migrations()}
    if manifest.migrations == shipped:
        return
    if not manifest.migrations.items() <= shipped.items():
        raise BackupFailed(
            f"{archive} was made by version {manifest.program_version} of Turnpike, whose database"
            " has another form. Restore it with that version."
        )
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        migrate(connection, shipped_migrations(), now_ms)
    finally:
        connection.close()


def _swap(work: Path, data_dir: Path, now_ms: int) -> tuple[Path | None, bool]:
    """Put aside what is there, and move in what was unpacked: where the former lies now, and
    whether what was carried is the backup's.
    """
    marker = data_dir / MARKER
    marker.touch(mode=0o600)
    sync_directory(data_dir)
    aside = None
    carried = (work / CARRIED_FILE).is_file() and not _carries(data_dir)
    parts = (*_PARTS, CARRIED_FILE) if carried else _PARTS
    present = [data_dir / name for name in parts if (data_dir / name).exists()]
    if present:
        aside = _folder(data_dir, now_ms)
        for path in present:
            path.rename(aside / path.name)
        sync_directory(aside)
        sync_directory(data_dir)
    if (work / SEGMENTS).is_dir():
        (work / SEGMENTS).rename(data_dir / SEGMENTS)
    (work / DATABASE_NAME).replace(data_dir / DATABASE_NAME)
    if carried:
        (work / CARRIED_FILE).rename(data_dir / CARRIED_FILE)
    sync_directory(data_dir)
    marker.unlink()
    sync_directory(data_dir)
    return aside, carried


def _carries(data_dir: Path) -> bool:
    """Whether there are carried prices already. What is in force is not turned back: like the
    configuration, it stays as it is, unless it is damaged.
    """
    try:
        return read_carried(data_dir) is not None
    except CarriedDamaged:
        return False
    except ConfigError:
        return True  # a newer program's


def _folder(data_dir: Path, now_ms: int) -> Path:
    """A new folder, named by the time."""
    stamp = datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 1000):
        folder = data_dir / (f"before-restore-{stamp}" + (f"-{number}" if number > 1 else ""))
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        return folder
    raise BackupFailed(f"There are too many folders named before-restore-{stamp} in {data_dir}.")
