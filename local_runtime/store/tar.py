"""The few things of a tar archive that a bundle needs, and no others: plain files in a row.

Python's ``tarfile`` reads links, devices, sparse files and headers of any length; what is not read
cannot be abused. Format: POSIX.1-2017, ustar; sizes over 8 GiB in base 256, as GNU tar writes them.
"""

import tarfile
from typing import BinaryIO

import msgspec

BLOCK = 512
_RECORD = 20 * BLOCK  # an archive is a whole number of these
_PLAIN = (b"0", b"\0")
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device",
          b"5": "a folder", b"6": "a pipe"}  # fmt: skip


class TarError(Exception):
    """The archive is damaged, or holds what is not taken."""


class Member(msgspec.Struct, frozen=True):
    """A plain file: its name and its bytes."""

    name: str
    size: int


def header(name: str, size: int, *, mode: int = 0o600, at_s: int = 0) -> bytes:
    """The one block before a plain file of at most 100 letters' name; the same for the same."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, mode, at_s
    block = entry.tobuf(tarfile.GNU_FORMAT)
    if len(block) != BLOCK:
        raise TarError(f"the name of {name!r} is too long")
    return block


def padded(size: int) -> int:
    """How long so many bytes are in an archive."""
    return size + -size % BLOCK


def end(before: int) -> bytes:
    """What ends an archive of so many bytes: two empty blocks, and up to a whole record."""
    return bytes(2 * BLOCK + -(before + 2 * BLOCK) % _RECORD)


def read_member(file: BinaryIO) -> Member | None:
    """The next header; None at the archive's end. Raises TarError."""
    block = file.read(BLOCK)
    if not block or block == bytes(BLOCK):
        return None
    if len(block) < BLOCK:
        raise TarError("it is cut short")
    if block[257:262] != b"ustar":
        raise TarError("it is not a tar archive")
    sum_told = _number(block[148:156])
    if sum_told != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise TarError("a header in it is damaged")
    name = block[:100].split(b"\0")[0].decode("utf-8", "replace")
    kind = block[156:157]
    if kind not in _PLAIN:
        raise TarError(f"it holds {_KINDS.get(kind, 'an unusual entry')} ({name!r})")
    if name.startswith("/") or ".." in name.split("/") or "\\" in name:
        raise TarError(f"it holds a file outside of itself ({name!r})")
    if block[257:263] == b"ustar\0" and block[345:346] != b"\0":
        raise TarError(f"the name of {name!r} is too long")
    return Member(name, _number(block[124:136]))


def skip_padding(file: BinaryIO, size: int) -> None:
    """To the next header. Raises TarError."""
    padding = -size % BLOCK
    if len(file.read(padding)) != padding:
        raise TarError("it is cut short")


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if value >= 2**60:
            raise TarError("a size in it is impossible")
        return value
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise TarError("a number in it is damaged") from None
