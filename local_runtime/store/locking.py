"""One file at a time for several processes: an advisory lock that ends with its holder."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold the lock ``path``; True when it was free at once.

    While somebody else has it, ``waiting`` is called about ten times a second; what it raises ends
    the wait. Threads of one process exclude each other too. The file stays when the lock goes:
    removing it would let two processes lock two files.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        at_once = True
        while True:
            try:
                _try_lock(fd)
            except OSError:
                at_once = False
                waiting()
                time.sleep(0.1)
            else:
                break
        yield at_once
    finally:
        os.close(fd)
