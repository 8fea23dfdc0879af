"""The one thread that writes: it owns one connection, commits in groups, and checkpoints.

Everything that was queued while the last group was on its way to the disk is committed together:
one transaction, one fsync, one wake-up of the event loop. Only this connection ever checkpoints,
between two groups, so SQLite's WAL-reset race (fixed in 3.51.3) has nobody to race with.

The first failed flush, commit or checkpoint stops the writer for good: what is on disk is unknown
until the file is opened again, so nothing is answered any more but LedgerUnavailable.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from app.errors import TurnpikeError
from app.histogram import Histogram
from app.storage.database import LedgerUnavailable, Params, Row, Transaction

GROUP_LENGTH_MAX = 512
GATHER_NS_MAX = 2_000_000
IDLE_S = 1.0
WAL_PAGES_TARGET = 2000
# Upper bounds of what a group's commit takes, in microseconds.
COMMIT_BUCKETS_US = (
    *(100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000),
    *(250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000),
)
_CHANGES_DUE_MIN, _CHANGES_DUE_MAX = 512, 1 << 20

# Primary result codes that say something about the disk or SQLite itself, not about the statement.
_FATAL = frozenset(
    {
        sqlite3.SQLITE_INTERNAL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)

logger = logging.getLogger(__name__)


class GroupMember(Protocol):
    """Code that keeps an image of the database in the writer thread (the ledger).

    Its verbs come in through ``submit``; they check first, then change the image and buffer rows.
    A verb refuses with a TurnpikeError or ValueError and has then changed nothing; any other
    exception stops the writer.
    """

    def opened(self, connection: sqlite3.Connection) -> None:
        """Before the first group: load what the image needs. Still on the opening thread."""
        ...

    def flush(self) -> None:
        """Write the buffered rows; called once before the commit and before each plain unit."""
        ...

    def unit_ran(self) -> None:
        """A plain unit has run: what the image remembers of other tables may have changed."""
        ...

    def committed(self) -> Callable[[], None] | None:
        """After the commit: what the event loop shall run once the futures are resolved."""
        ...


_Work = tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any]]
"""One queued verb. The future is resolved in the event loop, after the commit."""

_Answer = tuple[asyncio.Future[Any], Any, Exception | None]


class _UnitRaised(Exception):
    """A plain unit raised ``__cause__``; its savepoint is rolled back, the group goes on."""


class _Unit(Transaction):
    """The connection as a plain unit sees it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, params: Params = ()) -> list[Row]:
        return self._connection.execute(sql, params).fetchall()


class Writer:
    """The thread, its queue and its fate. ``submit`` and ``close`` belong to the event loop.

    The event loop decides when a group starts: once a turn of the loop brought nothing new, or
    after ``GATHER_NS_MAX``, and never while another group is under way. On a core that loop and
    thread share, groups that start with the first verb stay small and cost twice as much per verb.
    """

    def __init__(self, connection: sqlite3.Connection, member: GroupMember | None) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._member = member
        self._loop = asyncio.get_running_loop()
        self._queue: list[_Work] = []
        self._seen = 0
        self._gather_until_ns = 0
        self._busy = False  # gathering, or a group is under way
        self._groups: queue.SimpleQueue[list[_Work] | None] = queue.SimpleQueue()
        self._closing = False
        self._ended = asyncio.Event()
        self._changes_due = 8192
        self._changes_checkpointed = connection.total_changes
        self.failed: BaseException | None = None
        self.commits = Histogram(COMMIT_BUCKETS_US)
        self._thread = threading.Thread(target=self._run, name="turnpike-writer", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs and no write has failed."""
        return self.failed is None and self._thread.is_alive()

    @property
    def queue_length(self) -> int:
        """How many verbs wait for the next group."""
        return len(self._queue)

    def submit(self, verb: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Queue ``verb(*arguments)``; the future resolves once its group is on disk.

        Cancelling the future changes nothing but the caller's own waiting.
        """
        if self.failed is not None or self._closing:
            raise self._unavailable()
        future = self._loop.create_future()
        self._queue.append((verb, arguments, future))
        if not self._busy:
            self._gather()
        return future

    async def close(self) -> None:
        """Commit what is queued, checkpoint, end the thread. Does nothing the second time."""
        if not self._closing:
            self._closing = True
            if not self._busy:
                self._groups.put(None)
        await self._ended.wait()
        await asyncio.to_thread(self._thread.join)

    def _gather(self) -> None:
        """Start a group as soon as the loop brings no more."""
        self._busy = True
        self._seen = 0
        self._gather_until_ns = time.monotonic_ns() + GATHER_NS_MAX
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        waiting = self._queue
        if (
            self._seen < len(waiting) < GROUP_LENGTH_MAX
            and time.monotonic_ns() < self._gather_until_ns
        ):
            self._seen = len(waiting)
            self._loop.call_soon(self._look)
            return
        self._queue = waiting[GROUP_LENGTH_MAX:]
        self._groups.put(waiting[:GROUP_LENGTH_MAX])

    def _group_done(self, answers: list[_Answer], after: Callable[[], None] | None) -> None:
        for future, value, error in answers:
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
        if after is not None:
            after()
        self._busy = False
        if self._queue:
            self._gather()
        elif self._closing:
            self._groups.put(None)

    def _refuse_all(self, group: list[_Work]) -> None:
        for _, _, future in [*group, *self._queue]:
            if not future.done():
                future.set_exception(self._unavailable())
        self._queue.clear()

    def _unavailable(self) -> LedgerUnavailable:
        if self.failed is None:
            return LedgerUnavailable("The server is shutting down. Send the request again.")
        return LedgerUnavailable(
            "The ledger has stopped because a write to its disk failed. The operator must look at"
            " the server's log and restart it."
        )

    # What follows runs on the writer thread.

    def _run(self) -> None:
        group: list[_Work] | None = None
        try:
            while True:
                try:
                    group = self._groups.get(timeout=IDLE_S)
                except queue.Empty:
                    if self._changes() > 0:
                        self._checkpoint("PASSIVE")
                    continue
                if group is None:
                    break
                began_ns = time.monotonic_ns()
                self._commit(group)
                self.commits.add((time.monotonic_ns() - began_ns) // 1000)
                if self._changes() > self._changes_due:
                    self._checkpoint("PASSIVE")
            self._checkpoint("TRUNCATE")
        except BaseException as error:
            # Whatever it is, every caller must hear of it.
            logger.critical("the ledger stopped: a write failed; restart to go on", exc_info=error)
            self.failed = error
            # In the event loop nothing can be queued between the look at `failed` and this.
            self._call_in_loop(self._refuse_all, group or [])
        finally:
            self._connection.close()
            self._call_in_loop(self._ended.set)

    def _commit(self, group: list[_Work]) -> None:
        answers: list[_Answer] = []
        self._execute("BEGIN IMMEDIATE")
        for verb, arguments, future in group:
            try:
                answers.append((future, verb(*arguments), None))
            except (TurnpikeError, ValueError) as error:
                answers.append((future, None, error))
            except _UnitRaised as error:
                answers.append((future, None, _cause(error)))
        if self._member is not None:
            self._member.flush()
        self._execute("COMMIT")
        after = None if self._member is None else self._member.committed()
        self._call_in_loop(self._group_done, answers, after)

    def run_unit(self, unit: Callable[[Transaction], Any], is_note: bool = False) -> Any:
        """The verb behind ``Database.write``: a function of plain SQL under its own savepoint."""
        if self._member is not None:
            self._member.flush()
        self._execute("SAVEPOINT unit")
        try:
            result = unit(_Unit(self._connection))
        except Exception as error:
            # Where SQLite gave up the whole transaction, this rollback fails and stops the writer.
            self._execute("ROLLBACK TO unit")
            self._execute("RELEASE unit")
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _FATAL:
                raise
            raise _UnitRaised from error
        self._execute("RELEASE unit")
        if self._member is not None and not is_note:
            self._member.unit_ran()
        return result

    def _checkpoint(self, mode: str) -> None:
        """Move the WAL's pages into the database file, and learn how often that is due.

        PASSIVE keeps the WAL file at its size: writing over it costs less than growing it.
        """
        _, pages, _ = self._execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        changes = self._changes()
        self._changes_checkpointed += changes
        if changes >= self._changes_due:
            due = changes * WAL_PAGES_TARGET // max(pages, 1)
            self._changes_due = min(max(due, _CHANGES_DUE_MIN), _CHANGES_DUE_MAX)

    def _changes(self) -> int:
        """Rows changed since the last checkpoint."""
        return self._connection.total_changes - self._changes_checkpointed

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop is closed: nobody waits any more, and what was committed stays committed.
            logger.warning("the event loop ended before the writer")


def _cause(error: _UnitRaised) -> Exception:
    cause = error.__cause__
    return cause if isinstance(cause, Exception) else error
