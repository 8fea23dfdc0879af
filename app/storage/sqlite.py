"""The SQLite file: one writer thread, a few read-only connections, WAL and synchronous=FULL."""

import asyncio
import logging
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import aiosqlite

from app.clock import Clock, SystemClock
from app.histogram import Histogram
from app.storage.database import LedgerUnavailable, Params, Row, T, Transaction
from app.storage.migrate import DatabaseRefused, Due, migrate, shipped_migrations, upgrade_due
from app.storage.read_only import DAMAGE_CODES
from app.storage.restore_advice import check_no_restore, restore_advice
from app.storage.second_try import SecondTryConnection
from app.storage.wal_check import damage, read_log, taken_over
from app.storage.writer import GroupMember, Writer

READERS = 3
STATEMENTS_CACHED = 512
# Larger files start without SQLite's own check of every page, which reads a gigabyte a second.
QUICK_CHECK_BYTES_MAX = 256 << 20
_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables

log = logging.getLogger("turnpike.database")


class BeforeUpgrade(Protocol):
    """What is done for an older database: ``app.storage.upgrade.Upgrade``."""

    def around(self, due: Due, now_ms: int) -> AbstractContextManager[None]:
        """Entered before the migrations run, left after them. Raises DatabaseRefused."""
        ...


class SqliteDatabase:
    """Implements ``Database``. The caller holds the directory's lock while it is open.

    Without ``upgrade`` an older database is brought up to date with no backup of it, and without
    ``make_room`` nothing is given up for a write that meets a full disk.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock | None = None,
        upgrade: BeforeUpgrade | None = None,
        make_room: Callable[[], bool] | None = None,
    ) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._upgrade = upgrade
        self._make_room = make_room
        self._member: GroupMember | None = None
        self._writer: Writer | None = None
        self._idle_readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        self._readers: list[aiosqlite.Connection] = []

    def attach(self, member: GroupMember) -> None:
        """Let ``member`` take part in every group; before ``open``, and only one."""
        if self._member is not None or self._writer is not None:
            raise RuntimeError("one member, attached before the database is opened")
        self._member = member

    async def open(self) -> None:
        """Make the file (0600, in a directory of 0700), migrate it, start the thread.

        Raises DatabaseRefused when the file cannot be used.
        """
        try:
            connection = await asyncio.to_thread(self._connect)
        except (OSError, sqlite3.Error) as error:
            message = f"The database {self._path} cannot be opened: {error}."
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                message += " Make room on its disk, and start again."
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE_CODES:
                message += f" {restore_advice(self._path)}"
            raise DatabaseRefused(message) from error
        self._writer = Writer(connection, self._member)
        try:
            await self._open_readers()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Commit what is queued, checkpoint and close. Does nothing the second time."""
        readers, self._readers = self._readers, []
        for reader in readers:
            await reader.close()
        if self._writer is not None:
            await self._writer.close()

    @property
    def failed(self) -> BaseException | None:
        """What stopped the writer for good, if something did."""
        return None if self._writer is None else self._writer.failed

    @property
    def can_write(self) -> bool:
        """Whether the writer's thread lives and nothing has stopped it."""
        return self._writer is not None and self._writer.alive

    @property
    def commits(self) -> Histogram:
        """How long groups took to be on the disk, in microseconds."""
        return self._open_writer().commits

    @property
    def queue_length(self) -> int:
        """How many writes wait for the next group."""
        return self._open_writer().queue_length

    def bytes_by_file(self) -> dict[str, int]:
        """The sizes of the ``database`` and its ``wal``; 0 for one that is not there."""
        files = {"database": self._path, "wal": self._path.with_name(f"{self._path.name}-wal")}
        return {name: _size(path) for name, path in files.items()}

    async def read(self, sql: str, params: Params = ()) -> list[Row]:
        """Run one query on a read-only connection."""
        if not self._readers:
            raise LedgerUnavailable("The database is not open.")
        reader = await self._idle_readers.get()
        try:
            # A connection works its queries off in order: a cancelled one only delays the next.
            return [tuple(row) for row in await reader.execute_fetchall(sql, params)]
        finally:
            self._idle_readers.put_nowait(reader)

    async def write(self, unit: Callable[[Transaction], T], *, is_note: bool = False) -> T:
        """See ``Database.write``."""
        writer = self._open_writer()
        result: T = await writer.submit(writer.run_unit, unit, is_note)
        return result

    def submit(self, verb: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Run a verb of the attached member in the next group; see ``GroupMember``."""
        return self._open_writer().submit(verb, *arguments)

    async def _open_readers(self) -> None:
        for _ in range(READERS):
            reader = await aiosqlite.connect(self._uri("ro"), uri=True, isolation_level=None)
            self._readers.append(reader)
            await reader.execute("PRAGMA wal_autocheckpoint=0")
            await reader.execute("PRAGMA query_only=1")
            self._idle_readers.put_nowait(reader)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise LedgerUnavailable("The database is not open.")
        return self._writer

    def _uri(self, mode: str) -> str:
        return f"{self._path.absolute().as_uri()}?mode={mode}"

    def _connect(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise DatabaseRefused(
                f"SQLite {sqlite3.sqlite_version} is too old: Turnpike needs 3.37 or later."
            )
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_no_restore(self._path.parent)
        # SQLite gives its -wal and -shm files the mode of the file itself.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        self._path.chmod(0o600)
        torn = self._check_log()
        connection = sqlite3.connect(
            self._uri("rw"),
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_CACHED,
            timeout=5.0,
            factory=SecondTryConnection,
        )
        try:
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "wal_autocheckpoint=0",
                "cache_size=-32768",  # KiB: what calls touch again and again stays in memory
                "foreign_keys=ON",
                "recursive_triggers=ON",  # so that REPLACE meets the triggers against DELETE
                "trusted_schema=OFF",
            ):
                connection.execute(f"PRAGMA {pragma}")
            self._check(connection)
            if torn:  # lest what is left of it is taken for lost transactions another time
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._migrate(connection)
            # Not for migrations, some of which count on running once.
            connection.make_room = self._make_room
            # A statement of many rows keeps what it would need to undo itself: in memory, since a
            # temporary file costs more than the statement. Migrations may sort more than fits.
            connection.execute("PRAGMA temp_store=MEMORY")
            if self._member is not None:
                self._member.opened(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        now_ms = self._clock.now_ms()
        due = upgrade_due(connection, shipped_migrations())
        safely = self._upgrade.around(due, now_ms) if due and self._upgrade else nullcontext()
        with safely:
            migrate(connection, shipped_migrations(), now_ms)

    def _check_log(self) -> bool:
        """Refuse a write-ahead log that lost more than a power cut can take; whether its end is
        torn."""
        found = read_log(self._path)
        if sys.platform == "win32" or (found.sound and not found.frames):
            return False
        last = taken_over(self._path) if found.sound else 0
        problem = damage(found, last)
        if problem is not None:
            raise DatabaseRefused(
                f"The database {self._path} is damaged: {problem}. {restore_advice(self._path)}"
            )
        return found.frames > last

    def _check(self, connection: sqlite3.Connection) -> None:
        """Let SQLite look at every page of a file that is small enough for that."""
        size = self._path.stat().st_size
        if size > QUICK_CHECK_BYTES_MAX:
            log.info(
                "the database has %d MiB: its pages are not all checked at the start, only the end"
                " of the journal; `turnpike ledger audit` checks everything",
                size >> 20,
            )
            return
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise DatabaseRefused(
                f"The database {self._path} is damaged: {found}. {restore_advice(self._path)}"
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
