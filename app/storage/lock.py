"""One process per data directory: an advisory lock that ends with the process, however it ends."""

import contextlib
import errno
import os
import sys
from pathlib import Path
from types import TracebackType

from app.errors import AlreadyRunning, ConfigError

LOCK_NAME = "turnpike.lock"
# Written by a server that listens, for the command line: where it is and how to be its operator.
SERVER_FILE = "server.json"
# Windows locks bytes against reading too: the locked one lies far behind the holder's pid.
_LOCKED_BYTE = 1 << 30

if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> None:
        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DataDirLock:
    """Held from ``acquire`` to ``release``, or to the end of the process; also a context manager.

    The file stays when the lock goes: removing it would let two processes lock two files.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock, making the directory (0700) first where it is missing.

        Raises AlreadyRunning, which names the holder's process id, and ConfigError when the
        directory cannot be used.
        """
        path = self._data_dir / LOCK_NAME
        try:
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(
                f"server.data_dir: {self._data_dir} cannot be used: {error.strerror}."
                f" {_advice(error.errno)}"
            ) from error
        try:
            _lock(fd)
        except OSError as error:
            holder = os.pread(fd, 32, 0) if hasattr(os, "pread") else _head(fd)
            os.close(fd)
            raise AlreadyRunning(_already_running(self._data_dir, holder)) from error
        self._fd = fd
        # Written over what is there: on a full disk that takes no more room.
        with contextlib.suppress(OSError):  # only the message of a second start names it
            os.lseek(fd, 0, os.SEEK_SET)
            os.ftruncate(fd, os.write(fd, f"{os.getpid()}\n".encode()))

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> "DataDirLock":
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _advice(number: int | None) -> str:
    """What to do about a directory that cannot be used."""
    if number == errno.EROFS:
        return (
            "Mount it for writing, or give another directory with --data-dir. A disk that became"
            " read-only by itself is failing, or was checked and found damaged: look into the"
            " system's log first, and back up what can still be read."
        )
    if number in {errno.EACCES, errno.EPERM}:
        return (
            "It must belong to the user that runs Turnpike: run it as that one, change the owner,"
            " or give another directory with --data-dir."
        )
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return "Make room on its disk, and start again."
    return "Give another directory with --data-dir."


def _head(fd: int) -> bytes:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, 32)


def _already_running(data_dir: Path, holder: bytes) -> str:
    pid = holder.decode("ascii", "replace").strip()
    who = f"process {pid}" if pid.isdigit() else "another process"
    return (
        f"Turnpike is already running on {data_dir} ({who}). Stop that process first, or give this"
        " one a directory of its own with --data-dir."
    )
