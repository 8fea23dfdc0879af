"""A usage log and nothing else of the ledger; rows go in as the ledger writes them."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from app.ledger.entries import Outcome, UsageRow
from app.ledger.usage_rows import UsageRows
from app.metering.segments import Segments
from app.metering.usage import UsageLog
from app.storage.sqlite import SqliteDatabase

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
FIRST_MS = 1_793_491_200_000  # 2026-11-01T00:00:00Z


class ManualClock:
    """Says what it is told."""

    def __init__(self, now_ms: int = FIRST_MS) -> None:
        self.at_ms = now_ms

    @property
    def suspended(self) -> bool:
        return False

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_ns(self) -> int:
        return self.at_ms * 1_000_000


class Call(NamedTuple):
    """What a test says about a call."""

    at_ms: int
    user: str = "ann"
    key: str = "1"
    payer: str = ""
    group: str = ""
    model: str = "acme/tiny"
    provider: str = "mock"
    outcome: Outcome = Outcome.COMPLETED
    cost: int = 100
    input_tokens: int = 10
    audio_ms: int = 1_500

    def row(self, number: int) -> UsageRow:
        return UsageRow(
            call_id=f"call_{number:06d}",
            at_ms=self.at_ms,
            user_id=f"user_{self.user}",
            key_id=f"key_{self.user}_{self.key}",
            payer_id=self.payer or f"user_{self.user}",
            group_id=self.group,
            model=self.model,
            provider=self.provider,
            outcome=self.outcome,
            streamed=True,
            attempts=2,
            input_tokens=self.input_tokens,
            cache_read_tokens=3,
            output_tokens=20,
            reasoning_tokens=7,
            audio_output_tokens=1,
            images=1,
            characters=self.input_tokens + 5,
            audio_ms=self.audio_ms,
            video_ms=8_000,
            compute_ns=5_000,
            latency_ms=12,
            first_token_ms=4,
            provider_cost_nano_usd=None,
        )


class Recorder:
    """Implements ``GroupMember``: the part of the ledger that writes usage rows."""

    def __init__(self) -> None:
        self.rows = UsageRows()
        self._connection: sqlite3.Connection

    def opened(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.rows.opened(connection)

    def flush(self) -> None:
        self.rows.flush(self._connection)

    def unit_ran(self) -> None:
        pass

    def committed(self) -> Callable[[], None] | None:
        return None

    def record(self, calls: list[tuple[UsageRow, int]]) -> None:
        for usage, cost in calls:
            self.rows.add(usage, cost, f"7:{cost}")

    def spent(self, scope: str, subject_id: str, period: str) -> int:
        self.flush()
        return self.rows.spent(self._connection, scope, subject_id, period)


class Books:
    """The log, its files and what was recorded in it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.recorder = Recorder()
        self.database = SqliteDatabase(folder / "turnpike.db", self.clock)
        self.database.attach(self.recorder)
        self.segments = Segments(folder, self.database, self.clock)
        self.log = UsageLog(self.database, self.segments)
        self.calls: list[tuple[UsageRow, int]] = []

    async def record(self, calls: Iterable[Call], *, per_group: int = 64) -> None:
        """Write calls, a few in each transaction."""
        rows = [(call.row(len(self.calls) + at), call.cost) for at, call in enumerate(calls)]
        self.calls += rows
        for at in range(0, len(rows), per_group):
            await self.database.submit(self.recorder.record, rows[at : at + per_group])

    async def it_is(self, at_ms: int) -> None:
        """The ledger's time and the clock's move on."""
        self.clock.at_ms = at_ms
        await self.execute("UPDATE ledger_clock SET high_ms = ?", at_ms)

    async def execute(self, sql: str, *params: Any) -> None:
        def unit(tx: Any) -> None:
            tx.execute(sql, params)

        await self.database.write(unit)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Books]:
    """Fresh books in a folder."""
    books = Books(folder)
    await books.database.open()
    try:
        yield books
    finally:
        await books.database.close()
