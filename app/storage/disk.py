"""The data directory's disk: whether there is room for new calls, and a file to give up in need.

A ledger that cannot write cannot say what running calls cost. So new ones are refused while there
is still room for the others, and should the disk be full all the same, the ballast is removed: the
room that it held is for what has to be written down (reliability.md, fault matrix).
"""

import contextlib
import logging
import os
import shutil
import threading
from pathlib import Path

from app.errors import CallError, Unavailable

BALLAST = "ballast"
"""The file in the data directory."""
RETRY_AFTER_S = 30
_EMPTY_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_STAT_BLOCK_BYTES = 512

log = logging.getLogger("turnpike.disk")


class DiskWatch:
    """What is known of the disk. ``look`` asks it; everything else goes by the last look.

    ``low``: no new call is to be taken in. ``ballast_bytes`` 0 means none, ``free_bytes_min`` 0
    never low.
    """

    def __init__(self, data_dir: Path, *, free_bytes_min: int, ballast_bytes: int) -> None:
        self._data_dir = data_dir
        self._path = data_dir / BALLAST
        self._free_bytes_min = free_bytes_min
        self._ballast_bytes = ballast_bytes
        self._lock = threading.Lock()  # the writer thread gives up what another makes
        self.free_bytes = 0
        self.low = False

    def reconfigure(self, *, free_bytes_min: int, ballast_bytes: int) -> None:
        """The next look goes by these."""
        self._free_bytes_min = free_bytes_min
        self._ballast_bytes = ballast_bytes

    def ballast_held(self) -> int | None:
        """Bytes of the ballast that are on the disk now; None where none is wanted."""
        if not self._ballast_bytes:
            return None
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def start(self) -> None:
        """The first look. On a full disk the ballast of the last run goes at once, since not even
        a start can do without writing."""
        try:
            if self.free() < _EMPTY_BYTES:
                self.make_room()
            self.look()
        except OSError as error:
            log.warning("the disk of %s does not say how full it is: %s", self._data_dir, error)

    def free(self) -> int:
        """Bytes that this process may still write to the disk. Raises OSError."""
        if not hasattr(os, "statvfs"):
            return shutil.disk_usage(self._data_dir).free
        found = os.statvfs(self._data_dir)
        return found.f_bavail * found.f_frsize

    def look(self) -> None:
        """Ask the disk, say in the log what changed, and see to the ballast."""
        self.free_bytes = free = self.free()
        least = self._free_bytes_min
        if not self.low and free < least:
            self.low = True
            log.error(
                "the disk of %s has %d MiB free, less than free_bytes_min under [disk] (%d MiB): no"
                " new calls are taken until there is room again, which is noticed within seconds."
                " Make the disk larger, or remove what is not needed: old backups, logs, models"
                " (turnpike models prune).",
                self._data_dir,
                free >> 20,
                least >> 20,
            )
        elif self.low and free >= least + least // 16:
            self.low = False
            log.info("the disk has %d MiB free again: new calls are taken", free >> 20)
        # Beyond the ballast and the least a bit more, or making it would make the disk low.
        if free >= least + least // 16 + self._ballast_bytes + _EMPTY_BYTES:
            self._make_ballast()

    def make_room(self) -> bool:
        """Give up the ballast; whether there was one. Called by whoever met the full disk."""
        with self._lock:
            try:
                size = self._path.stat().st_size
                self._path.unlink()
            except OSError:
                return False
        self.low = self._free_bytes_min > 0 or self.low
        log.critical(
            "the disk of %s is full: its ballast of %d MiB was given up so that running calls can"
            " be settled. Make room now; once that is used up too, the ledger stops.",
            self._data_dir,
            size >> 20,
        )
        return True

    def refusal(self) -> CallError | None:
        """What a new call is told; None where there is room."""
        if not self.low:
            return None
        return Unavailable(
            "This server's disk is nearly full, so it takes no new calls. Its operator finds in the"
            " log what to do. Try again later.",
            code="ledger_unavailable",
            retry_after_s=RETRY_AFTER_S,
        )

    def _make_ballast(self) -> None:
        """Make the file where it lacks, or has another size than is configured."""
        try:
            with self._lock:
                if self._has_its_size():
                    return
                self._path.unlink(missing_ok=True)
                if self._ballast_bytes:
                    _allocate(self._path, self._ballast_bytes)
                    log.debug("a ballast of %d MiB is kept on the disk", self._ballast_bytes >> 20)
        except OSError as error:
            log.warning("there is no room for the ballast: %s", error)

    def _has_its_size(self) -> bool:
        try:
            return self._path.stat().st_size == self._ballast_bytes
        except FileNotFoundError:
            return self._ballast_bytes == 0


def _allocate(path: Path, size: int) -> None:
    """A file that really takes up so much of the disk, all of it or none. Raises OSError."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            with contextlib.suppress(OSError):  # not every file system can; the check comes below
                os.posix_fallocate(fd, 0, size)
        if getattr(os.fstat(fd), "st_blocks", 0) * _STAT_BLOCK_BYTES < size:
            _fill(fd, size)
        os.fsync(fd)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _fill(fd: int, size: int) -> None:
    """Write noise, which no file system makes smaller."""
    os.lseek(fd, 0, os.SEEK_SET)
    while size > 0:
        size -= os.write(fd, os.urandom(min(size, _CHUNK_BYTES)))
