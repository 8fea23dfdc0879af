"""Files by their SHA-256: what is in the store is what was promised, or is not in the store.

A file is written to ``partial/``, hashed and only then renamed into ``blobs/``, so that a name in
``blobs/`` is always that of its content, whenever the power went off. Folders are 0700, files 0600.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 4 << 20
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)

Tell = Callable[[int], None]


class StoreError(Exception):
    """The store cannot do what it was asked for; the text says why, and what to do."""


class WrongContent(StoreError):
    """A file is not what its hash or its size promised."""


class Blobs:
    """The folder of files by hash, and that of the ones that are not complete yet."""

    def __init__(self, root: Path) -> None:
        """``root`` is the models' folder, which is made (0700) where it is missing."""
        self._folder = root / "blobs"
        self.partial = root / "partial"
        for folder in (root, self._folder, self.partial):
            made_folder(folder)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be. Raises StoreError for what is no digest."""
        if not DIGEST.fullmatch(digest):
            raise StoreError(f"{digest[:80]!r} is not a SHA-256")
        return self._folder / f"sha256-{digest}"

    def has(self, digest: str, size: int) -> bool:
        """Whether it is here, whole, as a plain file."""
        try:
            found = self.path(digest).lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == size

    def every(self) -> Iterator[tuple[str, Path]]:
        """All blobs: digest and path."""
        for path in sorted(self._folder.iterdir()):
            digest = path.name.removeprefix("sha256-")
            if path.name.startswith("sha256-") and DIGEST.fullmatch(digest):
                yield digest, path

    def partial_path(self, key: str) -> Path:
        """The file that is filled before it becomes a blob; the same for the same ``key``."""
        return self.partial / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.part"

    def adopt(
        self,
        path: Path,
        *,
        size: int | None = None,
        digest: str | None = None,
        git_oid: str | None = None,
        check: Callable[[Path], None] = lambda _path: None,
        tell: Tell = lambda _bytes: None,
    ) -> str:
        """Make the finished file ``path`` a blob and return its SHA-256; ``path`` is gone then.

        ``tell`` gets the bytes hashed so far. ``git_oid`` is the hash that git gives to files of
        that content. Where size or hash are not what they were to be, or ``check`` refuses the
        file by raising StoreError, ``path`` is gone too, and WrongContent or that is raised.
        """
        with os.fdopen(open_to_read(path), "rb") as file:
            found_size = os.fstat(file.fileno()).st_size
            found, oid = _hashes(file.fileno(), found_size, tell, git=git_oid is not None)
            wrong = (
                (size is not None and size != found_size)
                or (digest is not None and digest != found)
                or (git_oid is not None and git_oid != oid)
            )
        if wrong:
            path.unlink()
            raise WrongContent(
                f"what came is not what was promised ({found_size} bytes with the SHA-256"
                f" {found[:16]}…, instead of {size} bytes with {(digest or git_oid or '?')[:16]}…);"
                " it was thrown away. Try again; if it stays so, something between here and there"
                " changes files"
            )
        try:
            check(path)
        except StoreError:
            path.unlink()
            raise
        path.chmod(0o600)
        _sync(path)
        path.replace(self.path(found))
        sync_folder(self._folder)
        return found

    def keep(self, partial: Path, digest: str) -> None:
        """Make ``partial`` the blob of that name, its SHA-256, as whoever wrote it found out."""
        partial.replace(self.path(digest))
        # Two names of one file are "replaced" by doing nothing.
        partial.unlink(missing_ok=True)
        sync_folder(self._folder)

    def digest_of(self, digest: str, tell: Tell = lambda _bytes: None) -> str:
        """The blob's hash as it is now, read anew. Raises OSError."""
        with os.fdopen(open_to_read(self.path(digest)), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _hashes(file.fileno(), size, tell, git=False)[0]

    def remove(self, digest: str) -> None:
        self.path(digest).unlink(missing_ok=True)


def made_folder(folder: Path) -> Path:
    """The folder, made (0700) where it is missing. Raises StoreError for what is none."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink():
        raise StoreError(f"{folder} is a symbolic link; it must be a folder")
    return folder


def open_to_read(path: Path) -> int:
    """A descriptor of a plain file, and of nothing else: no link is followed, no pipe waited for.

    Raises StoreError, OSError.
    """
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, os.O_RDONLY | _NOFOLLOW | _BINARY | nonblocking)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(f"{path} is a symbolic link") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise StoreError(f"{path} is not a file")
    return fd


def sync_folder(folder: Path) -> None:
    """Make what was renamed into a folder last; nothing to do on Windows."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(path: Path, data: bytes) -> None:
    """A small file, at once or not at all, and 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NOFOLLOW | _BINARY
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def _hashes(fd: int, size: int, tell: Tell, *, git: bool) -> tuple[str, str]:
    """SHA-256, and what git calls it (empty unless asked for)."""
    whole = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    done = 0
    os.lseek(fd, 0, os.SEEK_SET)
    while chunk := os.read(fd, _CHUNK):
        whole.update(chunk)
        if git:
            blob.update(chunk)
        done += len(chunk)
        tell(done)
    return whole.hexdigest(), blob.hexdigest() if git else ""


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | _NOFOLLOW | _BINARY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
