"""A file of this machine into the store: as a clone where the disk can, else as a copy, or as a
hard link where that was asked for.

A clone shares the bytes on the disk until one of the two is written to (btrfs, XFS, bcachefs,
overlays over them: ``ioctl_ficlonerange(2)``), so it costs nothing and is nobody else's. A hard
link is the other's file by a second name: what is written to the one is in the other.
"""

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from local_runtime.store.blobs import Blobs, StoreError, open_to_read

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_CHUNK = 4 << 20
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)

Tell = Callable[[int], None]


def linked(path: Path, target: Path) -> bool:
    """Whether a hard link was made: not of what others may write, nor to another disk."""
    found = path.stat()
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        return False
    try:
        os.link(path.resolve(), target)
    except OSError:
        return False
    return True


def copied(path: Path, target: Path, tell: Tell = lambda _bytes: None) -> str:
    """Make ``target`` (0600), a file of its own with the content of ``path``; the SHA-256 of it.

    ``tell`` gets the bytes done so far. Raises StoreError, OSError; then ``target`` may be half
    there.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY
    with (
        os.fdopen(open_to_read(path.resolve()), "rb", buffering=0) as source,
        os.fdopen(os.open(target, flags, 0o600), "r+b", buffering=0) as copy,
    ):
        cloned = clone(source.fileno(), copy.fileno())
        if not cloned:
            _check_room(os.fstat(source.fileno()).st_size, target.parent)
        whole, done = hashlib.sha256(), 0
        reader = copy if cloned else source
        while chunk := reader.read(_CHUNK):
            whole.update(chunk)
            if not cloned:
                _write(copy.fileno(), chunk)
            done += len(chunk)
            tell(done)
        os.fsync(copy.fileno())
        return whole.hexdigest()


def clone(source: int, target: int) -> bool:
    """Whether the disk gave ``target`` the content of ``source``, both descriptors, at no cost."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def add(
    blobs: Blobs, path: Path, *, link: bool = False, tell: Tell = lambda _bytes: None
) -> tuple[str, int]:
    """Take in a file from elsewhere; ``link``: as a hard link, where that is possible.

    Returns its SHA-256 and size. ``tell`` gets the bytes done so far. Raises StoreError, OSError.
    """
    partial = blobs.partial_path(f"import {path} {os.getpid()}")
    partial.unlink(missing_ok=True)
    try:
        if link and linked(path, partial):
            with os.fdopen(open_to_read(partial), "rb", buffering=0) as file:
                whole, done = hashlib.sha256(), 0
                while chunk := file.read(_CHUNK):
                    whole.update(chunk)
                    done += len(chunk)
                    tell(done)
            digest = whole.hexdigest()
        else:
            digest = copied(path, partial, tell)
        size = partial.stat().st_size
        blobs.keep(partial, digest)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest, size


def _check_room(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise StoreError(_no_room(size, folder))


def _write(fd: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    try:
        while left:
            left = left[os.write(fd, left) :]
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreError("the disk of the store is full; make room, and try again") from error
        raise


def _no_room(size: int, folder: Path) -> str:
    return (
        f"a copy takes {size >> 20} MiB, and the disk of {folder} has"
        f" {shutil.disk_usage(folder).free >> 20} MiB free; make room (models prune), keep models"
        " on another disk (local.models_folder), or take the file itself with --link"
    )
