"""A backup: one tar file of the database, the usage files, what a bundle carried, and a manifest
that proves them.

Taken beside a running server through a read-only connection, as one snapshot. It appears under its
name only when it is whole, on disk, and has been read back and verified.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from app.config_carried import CARRIED_FILE, decode_carried
from app.storage.archive import (
    FORMAT,
    SEGMENTS,
    BackupFailed,
    Manifest,
    Progress,
    read_manifest,
    sync_directory,
    untold,
    write_archive,
)
from app.storage.database import DATABASE_NAME
from app.storage.read_only import open_read_only, page_damage, schema_of
from app.storage.restore_advice import LAST_BACKUP_FILE, LastBackup
from app.version import VERSION

_PAGES_PER_STEP = 2048
_TRIES = 3


class Proof(Protocol):
    """What a check of a database found; ``app.ledger.audit.Audit`` is one."""

    @property
    def problems(self) -> list[str]: ...
    @property
    def entries(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def chain_head(self) -> str: ...


Prove = Callable[[Path], Proof]
"""Checks everything that a database file says: ``app.ledger.audit.audit_file``."""


def make_backup(
    data_dir: Path,
    target: Path,
    *,
    prove: Prove,
    now_ms: int,
    force: bool = False,
    any_schema: bool = False,
    progress: Progress = untold,
) -> Manifest:
    """Write a verified backup of the data directory to ``target``; only ``force`` overwrites.

    ``any_schema`` takes the database of an older program too; ``prove`` must then understand it.
    Raises BackupFailed, DatabaseRefused, ConfigError for what was carried and is damaged, OSError;
    nothing is left behind then.
    """
    _check_target(target, force)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        copy = work / DATABASE_NAME
        segments = _snapshot(data_dir, copy, progress, any_schema=any_schema)
        progress("verifying the copy", 0, 0)
        check_integrity(copy)
        proof = prove(copy)
        if proof.problems:
            raise BackupFailed(_refusal("The database does not add up", proof.problems))
        connection = open_read_only(copy, any_schema=True)
        migrations = schema_of(connection)
        connection.close()
        archive = work / "archive.tar"
        manifest = Manifest(
            format=FORMAT,
            program_version=VERSION,
            made_at_ms=now_ms,
            migrations=migrations,
            entries=proof.entries,
            calls=proof.calls,
            chain_head=proof.chain_head,
            members=[],
        )
        sources = [(DATABASE_NAME, copy), *((f"{SEGMENTS}/{path.name}", path) for path in segments)]
        carried = data_dir / CARRIED_FILE
        if carried.is_file():
            shutil.copyfile(carried, work / CARRIED_FILE)  # as of one moment
            decode_carried((work / CARRIED_FILE).read_bytes(), str(carried))
            sources.append((CARRIED_FILE, work / CARRIED_FILE))
        manifest = write_archive(archive, manifest, sources, progress)
        read_manifest(archive, progress)
        _check_target(target, force)
        archive.replace(target)
        sync_directory(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _remember(data_dir, target, now_ms)
    return manifest


def check_integrity(database: Path) -> None:
    """Ask SQLite for all that it can check. Raises BackupFailed."""
    connection = open_read_only(database, any_schema=True)
    try:
        found = page_damage(connection, thorough=True)
    finally:
        connection.close()
    if found:
        raise BackupFailed(_refusal("The database is damaged", found))


def _check_target(target: Path, force: bool) -> None:
    if not target.parent.is_dir():
        raise BackupFailed(f"The directory {target.parent} does not exist.")
    if target.is_dir():
        raise BackupFailed(f"{target} is a directory; name a file in it.")
    if target.exists() and not force:
        raise BackupFailed(f"{target} exists. Choose another name, or overwrite it with --force.")


def _snapshot(data_dir: Path, copy: Path, progress: Progress, *, any_schema: bool) -> list[Path]:
    """Copy the database as it stands at one moment; the usage files that belong to it.

    A usage file that retention gave up in between means another snapshot.
    """
    for _ in range(_TRIES):
        source = open_read_only(data_dir / DATABASE_NAME, any_schema=any_schema)
        try:
            source.execute("BEGIN")
            wanted = _wanted(source)
            _copy(source, copy, progress)
        finally:
            source.close()
        files = _segments(data_dir / SEGMENTS, wanted) if wanted else []
        if len(files) == len(wanted):
            return files
    raise BackupFailed(
        f"{len(wanted) - len(files)} of the usage files in {data_dir / SEGMENTS} are missing or"
        " damaged, so there is no whole backup."
    )


def _wanted(source: sqlite3.Connection) -> set[str]:
    """The contents of the usage files; databases of before there were any have no such table."""
    known = "SELECT 1 FROM sqlite_master WHERE name = 'usage_segments'"
    if source.execute(known).fetchone() is None:
        return set()
    rows = source.execute("SELECT sha256 FROM usage_segments WHERE dropped_at_ms IS NULL")
    return {sha256 for (sha256,) in rows}


def _segments(folder: Path, wanted: set[str]) -> list[Path]:
    """The files that have the wanted contents, one each."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, IsADirectoryError):
            continue
        if sha256 in wanted:
            found[sha256] = path
    return sorted(found.values())


def _copy(source: sqlite3.Connection, copy: Path, progress: Progress) -> None:
    copy.unlink(missing_ok=True)
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    target = sqlite3.connect(copy, isolation_level=None)
    try:
        target.execute("PRAGMA synchronous=OFF")  # the file is synced below, once
        source.backup(
            target,
            pages=_PAGES_PER_STEP,
            progress=lambda _status, left, total: progress("copying", total - left, total),
        )
        # Without a write-ahead log, one file is the whole database.
        target.execute("PRAGMA journal_mode=DELETE")
    finally:
        target.close()
    _sync(copy)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remember(data_dir: Path, target: Path, now_ms: int) -> None:
    """Leave a note for the message of a start that finds the database damaged."""
    note = LastBackup(path=str(target.absolute()), made_at_ms=now_ms)
    path = data_dir / LAST_BACKUP_FILE
    fresh = path.with_suffix(".tmp")
    try:
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(note))
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)  # the backup is whole without it


def _refusal(what: str, problems: list[str]) -> str:
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return f"{what}: {'; '.join(problems[:3])}{more}."
