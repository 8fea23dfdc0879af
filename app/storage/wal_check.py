"""Whether the write-ahead log lost whole transactions in its middle, which SQLite does not say.

SQLite takes the log's frames up to the first whose checksum is wrong, and drops all behind it
without a word: at the end of the log that is a commit that a power cut tore, and nobody was told
that it is there. With more commits behind it, it is damage: each was begun only when the one before
was on the disk. (The format: sqlite.org/fileformat2.html, section 4.)
"""

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">4I")  # of 24 bytes: page, size after the commit or 0, two salts
_FRAME_BYTES = 24
_MAGIC = (0x377F0682, 0x377F0683)  # the last bit: whose order of bytes the checksums use
_LAST_FRAME_AT = 16  # in the index of the log, ``-shm``
_TORN_MAX = 1
"""Commits that a power cut can tear: the writer's one."""


class Log(NamedTuple):
    """What the headers of its frames say: how many are of its present run, and the number of each
    that ends a transaction, counted from 1. ``sound``: whether its own header is what was written.
    """

    frames: int
    commits: tuple[int, ...]
    sound: bool = True


def read_log(database: Path) -> Log:
    """Look at the log of a database that nobody has open. Raises OSError."""
    path = database.with_name(f"{database.name}-wal")
    if not path.exists():
        return Log(0, ())
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not any(head):
            return Log(0, ())
        magic, _, page_size, _, *salts_and_sums = _HEADER.unpack(head)
        if magic not in _MAGIC or _checksum(head[:24], magic) != tuple(salts_and_sums[2:]):
            return Log(0, (), sound=os.fstat(file.fileno()).st_size == _HEADER.size)
        frames, commits = 0, []
        while True:
            file.seek(_HEADER.size + frames * (_FRAME_BYTES + page_size))
            found = file.read(_FRAME.size)
            if len(found) < _FRAME.size:
                break
            _, committed, *salts = _FRAME.unpack(found)
            if salts != salts_and_sums[:2]:
                break
            frames += 1
            if committed:
                commits.append(frames)
    return Log(frames, tuple(commits))


def _checksum(data: bytes, magic: int) -> tuple[int, int]:
    order = ">" if magic & 1 else "<"
    first = second = 0
    numbers = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, two in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


def taken_over(database: Path) -> int:
    """How many frames of the log SQLite goes by, of a database that nobody has open.

    Asked of SQLite's own index, with a connection that cannot write, and so leaves the log as it
    is. Closing any descriptor of the index would drop the locks of other connections on it. Raises
    OSError, sqlite3.Error.
    """
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as asked:
        asked.execute("SELECT count(*) FROM sqlite_master").fetchone()
        index = database.with_name(f"{database.name}-shm").read_bytes()
        (found,) = struct.unpack_from("=I", index, _LAST_FRAME_AT)
    return int(found)


def damage(log: Log, last_frame: int) -> str | None:
    """What is wrong with a log of which so many frames counted; None where nothing is."""
    if not log.sound:
        return "the header of its write-ahead log is not what was written"
    lost = sum(number > last_frame for number in log.commits)
    if lost > _TORN_MAX:
        return (
            f"its write-ahead log is damaged after frame {last_frame}, and {lost} transactions"
            " behind it cannot be read"
        )
    return None
