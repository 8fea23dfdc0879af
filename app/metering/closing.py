"""Days and months that are over: nothing is added to them any more.

A day is closed once the ledger's own time is well past it and no hold that was admitted in it is
open. The ledger's time only rises, so what is closed stays closed, whatever the machine's clock
does. A month that is closed gets its sums, made of its days.
"""

from functools import partial

from app.clock import DAY_MS, Clock
from app.ledger.usage_rows import SUMMED
from app.metering.rollup import first_day, month_of
from app.storage.database import Database, Transaction

MARGIN_MS = 3_600_000
SERIES_PER_UNIT = 500  # of a month's sums: a few milliseconds, which calls wait for

_SUMS = ", ".join(f"sum(t.{name})" for name in SUMMED)
_FILL = (
    f"INSERT OR REPLACE INTO usage_months (month, series_id, {', '.join(SUMMED)})"  # noqa: S608
    f" SELECT ?, s.id, {_SUMS} FROM series s CROSS JOIN usage_days t ON t.series_id = s.id"
    " WHERE s.id > ? AND s.id <= ? AND s.party_id <> 0 AND t.day >= ? AND t.day < ? GROUP BY s.id"
)
_FIRST_DAY = (
    "SELECT min(t.day) FROM series s CROSS JOIN usage_days t ON t.series_id = s.id"
    " WHERE s.coarse_id = s.id"
)


async def first_open_day(database: Database) -> int:
    """The first day, counted from 1970-01-01, that is not closed: all before it are."""
    rows = await database.read(
        "SELECT (SELECT high_ms FROM ledger_clock), (SELECT min(admitted_at_ms) FROM holds)"
    )
    high_ms, oldest_hold_ms = rows[0]
    edge_ms: int = min(high_ms or 0, high_ms if oldest_hold_ms is None else oldest_hold_ms)
    return max(edge_ms - MARGIN_MS, 0) // DAY_MS


async def closed_months(database: Database) -> list[int]:
    """The months that have their sums, in order and without a gap."""
    rows = await database.read("SELECT month FROM usage_months_closed ORDER BY month")
    return [month for (month,) in rows]


async def close_months(database: Database, clock: Clock) -> list[int]:
    """Sum up the months that are over; those that it closed. Doing it again changes nothing."""
    done = await closed_months(database)
    if done:
        month = done[-1] + 1
    else:
        first = (await database.read(_FIRST_DAY))[0][0]
        if first is None:
            return []
        month = month_of(first)
    closed = []
    open_day = await first_open_day(database)
    while first_day(month + 1) <= open_day:
        await _close(database, clock, month)
        closed.append(month)
        month += 1
    return closed


async def _close(database: Database, clock: Clock, month: int) -> None:
    last = (await database.read("SELECT coalesce(max(id), 0) FROM series"))[0][0]
    for after in range(0, last, SERIES_PER_UNIT):
        await database.write(partial(_fill, month, after), is_note=True)
    now_ms = clock.now_ms()

    def mark(tx: Transaction) -> None:
        tx.execute(
            "INSERT INTO usage_months_closed VALUES (?, ?) ON CONFLICT DO NOTHING", (month, now_ms)
        )

    await database.write(mark)


def _fill(month: int, after: int, tx: Transaction) -> None:
    days = first_day(month), first_day(month + 1)
    tx.execute(_FILL, (month, after, after + SERIES_PER_UNIT, *days))
