"""Walks the journal's hash chain and finds the first entry that is not what was written (I2).

Three walks: the tail at every start, a slice every hour, and all of it for an audit, a backup and
a restore. All read in pages, so memory stays the same whatever the journal's length.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from app.ledger.chain import HEAD, link
from app.storage.database import Database
from app.storage.migrate import DatabaseRefused
from app.storage.restore_advice import restore_advice

TAIL_LENGTH = 10_000  # about 30 ms
PAGE_LENGTH = 10_000
SLICES = 24
"""In how many hourly slices the whole journal is checked once."""
_SLICE_LENGTH_MIN = 10_000
_SLICE_PAGE_LENGTH = 500  # a millisecond of the event loop

Ask = Callable[[str, Sequence[Any]], Iterable[tuple[Any, ...]]]
"""``execute`` of a connection or of a transaction."""

ENTRIES_AFTER = (
    "SELECT seq, at_ms, period, kind, subject, debit_account_id, credit_account_id,"
    " amount_nano_usd, hash FROM entries WHERE seq > ? ORDER BY seq LIMIT ?"
)


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """How far a walk came. ``seq`` and ``hash`` are those of the last entry found good.

    ``first_bad`` is the first entry that is not what was written, where there is one, and
    ``problem`` says so in a sentence. ``entries`` counts the good ones.
    """

    entries: int = 0
    seq: int = 0
    hash: bytes = HEAD
    first_bad: int | None = None
    problem: str | None = None


def follow(walk: Walk, rows: Iterable[tuple[Any, ...]]) -> Walk:
    """Go on from a good walk over the next entries, rows of ``ENTRIES_AFTER``."""
    last_seq, last, good = walk.seq, walk.hash, walk.entries
    for row in rows:
        expected: bytes | None
        try:
            expected = link(last, *row[:8])
        except (AttributeError, TypeError, UnicodeEncodeError):
            expected = None  # a value of a type, or a text, that was never written
        if expected != row[8]:
            return Walk(
                entries=good,
                seq=last_seq,
                hash=last,
                first_bad=row[0],
                problem=f"Entry {row[0]} of the journal does not match its hash: it, or what stood"
                " before it, is not what was written.",
            )
        last_seq, last = row[0], row[8]
        good += 1
    return Walk(entries=good, seq=last_seq, hash=last)


def verify_slice(ask: Ask, after_seq: int, rows: int) -> Walk:
    """Check up to ``rows`` entries after the one numbered ``after_seq`` (0: from the start).

    The hash of that one is taken as it stands. A walk of no entries means that the end is reached.
    """
    walk = Walk()
    try:
        walk = _start(ask, after_seq)
        end = walk.entries + rows
        while walk.problem is None and walk.entries < end:
            found = list(ask(ENTRIES_AFTER, (walk.seq, min(PAGE_LENGTH, end - walk.entries))))
            if not found:
                break
            walk = follow(walk, found)
    except sqlite3.DatabaseError as error:
        return _unreadable(walk, error)
    return walk


def verify_all(ask: Ask) -> Walk:
    """Check the whole journal."""
    return verify_slice(ask, 0, 2**62)


def verify_tail(ask: Ask, rows: int = TAIL_LENGTH) -> Walk:
    """Check the newest ``rows`` entries."""
    try:
        found = list(ask("SELECT seq FROM entries ORDER BY seq DESC LIMIT 1 OFFSET ?", (rows,)))
    except sqlite3.DatabaseError as error:
        return _unreadable(Walk(), error)
    return verify_slice(ask, found[0][0] if found else 0, rows)


def check_at_boot(connection: sqlite3.Connection) -> None:
    """Raise DatabaseRefused, with the restore command, where the end of the journal is damaged."""
    problem = verify_tail(connection.execute).problem
    if problem is not None:
        (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
        raise DatabaseRefused(f"The database is damaged. {problem} {restore_advice(Path(path))}")


class JournalWatch:
    """Checks a slice of a running ledger's journal at a time, round and round.

    ``problem`` says what was found wrong, and stays: a damaged journal does not heal.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._walk = Walk()
        self.problem: str | None = None
        self.checked_ns: int | None = None
        """When the last slice was found good, by ``time.monotonic_ns``."""

    async def check_slice(self) -> int:
        """Go on where the last slice ended; how many entries were checked."""
        if self.problem is not None:
            return 0
        ((newest,),) = await self._database.read("SELECT coalesce(max(seq), 0) FROM entries")
        length = max(newest // SLICES, _SLICE_LENGTH_MIN)
        walk = msgspec.structs.replace(self._walk, entries=0)
        try:
            while walk.problem is None and walk.entries < length:
                rows = await self._database.read(ENTRIES_AFTER, (walk.seq, _SLICE_PAGE_LENGTH))
                walk = follow(walk, rows)
                if len(rows) < _SLICE_PAGE_LENGTH:
                    break
        except sqlite3.DatabaseError as error:
            walk = _unreadable(walk, error)
        self.problem = walk.problem
        self._walk = Walk() if walk.seq >= newest else walk
        if walk.problem is None:
            self.checked_ns = time.monotonic_ns()
        return walk.entries


def _start(ask: Ask, after_seq: int) -> Walk:
    if after_seq:
        for (last,) in ask("SELECT hash FROM entries WHERE seq = ?", (after_seq,)):
            return Walk(seq=after_seq, hash=last)
    return Walk()


def _unreadable(walk: Walk, error: sqlite3.DatabaseError) -> Walk:
    problem = f"The journal cannot be read after entry {walk.seq}: {error}."
    return msgspec.structs.replace(walk, first_bad=walk.seq + 1, problem=problem)
