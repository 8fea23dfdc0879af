"""Room on the disks that hold data, models and backups, and whether they take a write for good."""

import os
import shlex
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from app.config import Config
from app.doctor.finding import Finding, Teller, gib
from app.storage.disk import BALLAST

SYNC_TRIES = 9
SYNC_MS_SLOW = 50.0
"""Each call waits for one such write before anything is sent, and for one more at its end."""
_SYNC_BYTES = 4096
_ROOM_TIMES = 4
_MODELS_BYTES_LOW = 2 << 30
_tell = Teller("disk")


def check_disk(config: Config, *, database_bytes: int, running: bool = False) -> list[Finding]:
    """``database_bytes`` is what a backup needs room for; ``running``: beside a server."""
    data_dir = config.data_dir()
    found = _folder(
        "data directory",
        data_dir,
        config.disk.free_bytes_min,
        config.disk.free_bytes_min * _ROOM_TIMES,
        "server.data_dir",
    )
    if not any(finding.code.startswith("disk.unwritable") for finding in found):
        found += _sync(data_dir)
    if running and config.disk.ballast_bytes and not (data_dir / BALLAST).exists():
        text = f"the ballast of {gib(config.disk.ballast_bytes)} was given up: the disk was full"
        fix = f"Make room; the server makes the ballast again: {_largest(data_dir)}"
        found.append(_tell.warning("disk.no_ballast", text, fix, path=str(data_dir)))
    models = config.models_folder()
    if models.exists() or config.local.models_folder:
        found += _folder("models folder", models, 0, _MODELS_BYTES_LOW, "local.models_folder")
    if config.backups.folder:
        backups = Path(config.backups.folder).expanduser()
        need = 2 * database_bytes
        found += _folder("backups folder", backups, need, 4 * need, "backups.folder")
    return found


def free_bytes(folder: Path) -> int:
    """Bytes that a process without special rights can still write there."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    for each in (folder, *folder.absolute().parents):
        if each.exists():
            return each
    return Path("/")


def _folder(what: str, folder: Path, least: int, low: int, setting: str) -> list[Finding]:
    try:
        there = existing(folder)
        if not there.is_dir():
            return [
                _tell.problem(
                    "disk.unwritable",
                    f"the {what} {folder} is no folder: {there} is a file",
                    f"Name another folder with {setting}, or move the file away",
                    path=str(folder),
                )
            ]
        free = free_bytes(there)
        inodes = os.statvfs(there).f_favail if hasattr(os, "statvfs") else 1
    except OSError as error:
        return [
            _tell.problem(
                "disk.unwritable",
                f"the {what} {folder} cannot be looked at: {error.strerror}",
                f"Let this account read it, or name another folder with {setting}",
                path=str(folder),
            )
        ]
    found = [] if _writable(there) else [_unwritable(what, folder, there, setting)]
    text = f"{gib(free)} free for the {what} {folder}"
    more = f"Make room on the disk of {there}: {_largest(there)}"
    if free < least or inodes == 0:
        text = f"{text}; {gib(least)} is the least" if inodes else f"no file fits on {there}"
        found.append(_tell.problem("disk.full", text, more, path=str(folder)))
    elif free < low:
        found.append(_tell.warning("disk.low", text, more, path=str(folder)))
    elif not found:
        new = "" if there == folder else ", which will be made"
        found.append(_tell.ok("disk.ok", text + new))
    return found


def _largest(folder: Path) -> str:
    """The command that shows what takes the room."""
    return f"du -xh {shlex.quote(str(folder))} | sort -h | tail"


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _unwritable(what: str, folder: Path, there: Path, setting: str) -> Finding:
    try:
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
    except (OSError, AttributeError):
        read_only = 0
    if read_only:
        text = f"the {what} {folder} is on a disk that is mounted for reading only"
        fix = f"Look why (dmesg | tail), then mount it for writing: mount -o remount,rw {there}"
    else:
        text = f"this account cannot write to the {what} {folder}"
        fix = f"chmod u+wx {shlex.quote(str(there))}"
        fix += f", or chown it to this account; or name another with {setting}"
    return _tell.problem("disk.unwritable", text, fix, path=str(folder))


def _sync(data_dir: Path) -> list[Finding]:
    """How long the disk takes to keep a small write for good."""
    if not data_dir.is_dir():
        return []
    took_ms = []
    try:
        with tempfile.TemporaryFile(dir=data_dir) as file:
            for _ in range(SYNC_TRIES):
                file.write(os.urandom(_SYNC_BYTES))
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                took_ms.append((time.perf_counter() - began) * 1000)
    except OSError as error:
        return [
            _tell.problem(
                "disk.sync_failed",
                f"the disk of {data_dir} did not keep a write: {error.strerror}",
                "Look what the system says of the disk (dmesg | tail) and replace it; then restore"
                " a backup",
                path=str(data_dir),
            )
        ]
    return [_of_speed(statistics.median(took_ms))]


def _of_speed(took_ms: float) -> Finding:
    text = f"a write is kept for good after {took_ms:.1f} ms"
    if took_ms <= SYNC_MS_SLOW:
        return _tell.ok("disk.sync", text)
    return _tell.warning(
        "disk.slow",
        f"{text}, and every call waits for one: that is slow",
        "Put the data directory on a faster disk of this machine, no network share: `data_dir`"
        " under [server]",
    )
