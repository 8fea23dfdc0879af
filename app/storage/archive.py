"""The file of a backup: a tar of its members, whose manifest comes last and has their SHA-256."""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from app.errors import TurnpikeError
from app.storage.database import DATABASE_NAME

FORMAT = 1
SEGMENTS = "usage"
"""The directory of the usage files, in the data directory and in a backup."""
MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20

Progress = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and how far it goes (0: not known)."""


class BackupFailed(TurnpikeError):
    """No backup was written, or this one cannot be used; the message says why."""


def untold(what: str, done: int, total: int) -> None:
    """A ``Progress`` for nobody."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a backup."""

    name: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself. ``migrations`` are SHA-256 by name; ``made_at_ms`` is UTC.

    ``chain_head`` is the hash of the last of ``entries``: two backups with the same one hold the
    same journal.
    """

    format: int
    program_version: str
    made_at_ms: int
    migrations: dict[str, str]
    entries: int
    calls: int
    chain_head: str
    members: list[Member]


class _Hashing:
    """A file that is read once, and hashed on the way."""

    def __init__(self, file: IO[bytes], tell: Callable[[int], None]) -> None:
        self._file = file
        self._tell = tell
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def read(self, length: int = -1) -> bytes:
        piece = self._file.read(length)
        self.sha256.update(piece)
        self.bytes += len(piece)
        self._tell(len(piece))
        return piece


def write_archive(
    archive: Path, manifest: Manifest, sources: list[tuple[str, Path]], progress: Progress
) -> Manifest:
    """The tar file, its manifest last, synced; the manifest with its members."""
    total = sum(path.stat().st_size for _, path in sources)
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        progress("writing", done, total)

    members = []
    fd = os.open(archive, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w+b") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, path in sources:
                with path.open("rb") as opened:
                    reader = _Hashing(opened, tell)
                    length = os.fstat(opened.fileno()).st_size
                    tar.addfile(_header(name, length, manifest), reader)
                sha256 = reader.sha256.hexdigest()
                members.append(Member(name=name, bytes=length, sha256=sha256))
            manifest = msgspec.structs.replace(manifest, members=members)
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            tar.addfile(_header(MANIFEST, len(text), manifest), io.BytesIO(text))
        file.flush()
        os.fsync(file.fileno())
    return manifest


def _header(name: str, length: int, manifest: Manifest) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = length, 0o600
    header.mtime = manifest.made_at_ms // 1000
    return header


def _read(archive: Path, folder: Path | None, progress: Progress) -> Manifest:
    """Check every member against the manifest, and write it into ``folder`` if there is one."""
    try:
        with tarfile.open(archive, "r:") as tar:
            manifest = _manifest(tar)
            total, done = sum(member.bytes for member in manifest.members), 0
            for member in manifest.members:
                source = tar.extractfile(tar.getmember(member.name))
                if source is None:
                    raise BackupFailed(f"{archive}: {member.name} is not a file.")
                sha256 = hashlib.sha256()
                with _writer(folder, member.name) as target:
                    while piece := source.read(_CHUNK_BYTES):
                        sha256.update(piece)
                        target.write(piece)
                        done += len(piece)
                        progress("reading", done, total)
                    target.flush()
                    if folder is not None:
                        os.fsync(target.fileno())
                if sha256.hexdigest() != member.sha256:
                    raise BackupFailed(f"{archive} is damaged: {member.name} has changed.")
            return manifest
    except (tarfile.TarError, EOFError, KeyError, msgspec.MsgspecError) as error:
        raise BackupFailed(f"{archive} is not a whole backup of Turnpike: {error}") from error


def _manifest(tar: tarfile.TarFile) -> Manifest:
    header = tar.getmember(MANIFEST)
    file = tar.extractfile(header)
    if file is None or header.size > 16 * _CHUNK_BYTES:
        raise BackupFailed("The backup's manifest is not one.")
    text = file.read()
    found = msgspec.json.decode(text, type=dict[str, object])
    if found.get("format") != FORMAT:
        raise BackupFailed("The backup was made by a newer version of Turnpike. Use that one.")
    manifest = msgspec.json.decode(text, type=Manifest)
    for member in manifest.members:
        folder, _, name = member.name.rpartition("/")
        if folder not in ("", SEGMENTS) or not name or name.startswith(".") or "\\" in name:
            raise BackupFailed(f"The backup has a file that does not belong in it: {member.name}")
    if not any(member.name == DATABASE_NAME for member in manifest.members):
        raise BackupFailed("The backup has no database in it.")
    return manifest


def _writer(folder: Path | None, name: str) -> IO[bytes]:
    if folder is None:
        return open(os.devnull, "wb")
    path = folder / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def read_manifest(archive: Path, progress: Progress = untold) -> Manifest:
    """The manifest of a backup whose every byte is as it was written. Raises BackupFailed."""
    return _read(archive, None, progress)


def peek_manifest(archive: Path) -> Manifest:
    """What a backup says of itself, unverified: enough for a list. Raises BackupFailed, OSError."""
    try:
        with tarfile.open(archive, "r:") as tar:
            return _manifest(tar)
    except (tarfile.TarError, EOFError, KeyError, msgspec.MsgspecError) as error:
        raise BackupFailed(f"{archive} is not a whole backup of Turnpike: {error}") from error


def unpack(archive: Path, folder: Path, progress: Progress = untold) -> Manifest:
    """Put a backup's files into an empty folder (0600, on disk), each checked on the way."""
    manifest = _read(archive, folder, progress)
    for name in (SEGMENTS, "."):
        if (folder / name).is_dir():
            sync_directory(folder / name)
    return manifest


def sync_directory(folder: Path) -> None:
    """Make names in a directory outlive a power cut, where the system can."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
