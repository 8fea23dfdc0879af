"""A folder as a gzip stream of a tar archive, which depends on nothing but its content.

What is large is compressed once for all the streams that it goes into, apart from what stands
before and behind it: a deflate stream may consist of pieces that know nothing of each other.
"""

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_APART_BYTES = 64 * 1024  # what is smaller is compressed together with its neighbours
_PIECE_BYTES = 4 * 1024 * 1024
_LEVEL = 6
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"  # gzip (RFC 1952), without a time
_LAST_BLOCK = b"\x03\x00"  # of deflate (RFC 1951), empty


class Squeezer:
    """Makes streams, and remembers what it compressed for the next."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def packed(self, folder: Path, prefix: str, when: int) -> bytes:
        """The folder below ``prefix``, every file of the time ``when`` (seconds)."""
        parts = list(_parts(folder, prefix, when))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            squeezed = list(pool.map(self._squeezed, parts))
        check = length = 0
        for part in parts:
            check = zlib.crc32(part, check)
            length += len(part)
        tail = check.to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little")
        return b"".join([_HEAD, *squeezed, _LAST_BLOCK, tail])

    def _squeezed(self, part: bytes) -> bytes:
        """A piece of a deflate stream that ends with a whole byte."""
        name = hashlib.sha256(part).digest()
        found = self._known.get(name)
        if found is None:
            squeeze = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
            found = squeeze.compress(part) + squeeze.flush(zlib.Z_FULL_FLUSH)
            self._known[name] = found
        return found


def _parts(folder: Path, prefix: str, when: int) -> Iterator[bytes]:
    """The tar archive, cut where something large begins and ends."""
    waiting = bytearray()
    for header, content in _members(folder, prefix, when):
        waiting += header
        if len(content) < _APART_BYTES:
            waiting += content
        else:
            yield bytes(waiting)
            waiting.clear()
            view = memoryview(content)
            for at in range(0, len(content), _PIECE_BYTES):
                yield bytes(view[at : at + _PIECE_BYTES])
        waiting += bytes(-len(content) % tarfile.BLOCKSIZE)
    yield bytes(waiting) + bytes(2 * tarfile.BLOCKSIZE)


def _members(folder: Path, prefix: str, when: int) -> Iterator[tuple[bytes, bytes]]:
    """Header and content of each."""
    with tarfile.open(fileobj=io.BytesIO(), mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.rglob("*"), key=lambda each: each.relative_to(folder).parts):
            member = archive.gettarinfo(path, str(Path(prefix, path.relative_to(folder))))
            if member.islnk():  # the same file twice; unpacking knows files and symbolic links
                member.type, member.size = tarfile.REGTYPE, path.stat().st_size
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = when
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            content = path.read_bytes() if member.isreg() else b""
            yield member.tobuf(tarfile.USTAR_FORMAT), content
