"""Who holds a data directory, found out without taking its lock away from anybody.

A trial of the lock could meet a server that starts in the same moment and is told that another
process has the directory; the system's own table of locks disturbs nobody.
"""

import os
import sys
from pathlib import Path

from app.storage.lock import LOCK_NAME

_LOCKS = Path("/proc/locks")
UNKNOWN = 0
"""The process id of a holder that the system does not name."""


def holder_of(data_dir: Path) -> int | None:
    """The id of the process that works on the directory; None where none does.

    Raises OSError where the lock's file cannot be read.
    """
    path = data_dir / LOCK_NAME
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    written = _written(path)
    try:
        table = _LOCKS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return written if _is_locked(path) else None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    for line in table.splitlines():
        # 3: FLOCK  ADVISORY  WRITE 4711 08:01:131073 0 EOF (proc_locks(5))
        words = line.split()
        if len(words) < 6 or words[1] != "FLOCK" or words[3] != "WRITE":
            continue
        pid = int(words[4]) if words[4].isdigit() else UNKNOWN
        # Some file systems number their files otherwise in this table: there, the process tells.
        if words[5] == f"{device}:{found.st_ino}" or (pid and pid == written):
            return pid
    return None


def _written(path: Path) -> int:
    try:
        return int(path.read_bytes()[:32])
    except ValueError:
        return UNKNOWN


if sys.platform == "win32":

    def _is_locked(path: Path) -> bool:
        """There is no lock to read with there; a server that listens is found by its file."""
        return False

else:
    import fcntl

    def _is_locked(path: Path) -> bool:
        """A lock for reading, given back at once, on systems without a table of locks."""
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False
