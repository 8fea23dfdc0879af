"""How long questions about usage take on a large log: JSON lines, the best of three each.

Generates a database of calls by 10,000 users in twelve months, sums and all, in a folder that it
removes. ``python -m tests.bench.usage [CALLS]``, by default ten million: about three minutes and
2 GB. The questions go through the same code as ``GET /api/usage``.
"""

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from app.clock import SystemClock
from app.ledger.usage_rows import SUMMED
from app.metering.closing import close_months
from app.metering.questions import Filters, Grouping
from app.metering.usage import UsageLog
from app.storage.migrate import migrate, shipped_migrations
from app.storage.sqlite import SqliteDatabase

USERS = 10_000
DAYS = 365
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
START_MS = 1_764_547_200_000  # 2025-12-01T00:00:00Z
OFFERS = (
    ("acme/tiny", "mock"),
    ("acme/big", "mock"),
    ("acme/big", "other"),
    ("local/m", "local"),
    ("zeta/x", "other"),
)
OUTCOMES = ("completed", "truncated", "failed")
_PER_USER = 1 + len(OFFERS) * len(OUTCOMES)
_FIRST_FINE = 1 + len(OFFERS) * len(OUTCOMES)
_COUNTS = ", ".join(f"sum({name})" for name in SUMMED[1:])
_NAMED = ", ".join(f"sum({name}) AS {name}" for name in SUMMED)
_RUNNING = ", ".join(f"sum({name}) OVER past" for name in SUMMED)

_CALLS = f"""
INSERT INTO usage
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :calls - 1),
     r (i, h) AS (SELECT i, (i * 2654435761) & 4294967295 FROM n)
SELECT {START_MS} + i * {DAYS * DAY_MS} / :calls, printf('call_%026d', i),
       {_FIRST_FINE} + {_PER_USER} * ((h >> 7) % {USERS}) + 1
       + {len(OUTCOMES)} * ((h >> 3) % {len(OFFERS)})
       + (CASE WHEN (h >> 19) % 10 < 8 THEN 0 WHEN (h >> 19) % 10 < 9 THEN 1 ELSE 2 END),
       1, 1, 10 + h % 7, 0, 0, 20 + h % 11, 0, 0, 0, 0, h % 1000, 0, 100, NULL, 100 + h % 10007,
       NULL, '', 0, 0, 0
FROM r
"""
_SUMS = (
    f"INSERT INTO usage_hours SELECT at_ms / 3600000, series_id, count(*), {_COUNTS} FROM usage"
    " GROUP BY 1, 2",
    f"INSERT INTO usage_hours SELECT hour, coarse_id, sum(calls), {_COUNTS} FROM usage_hours"
    " JOIN series ON id = series_id GROUP BY 1, 2",
    f"INSERT INTO usage_days SELECT series_id, hour / 24, sum(calls), {_COUNTS} FROM usage_hours"
    " GROUP BY 1, 2 ORDER BY 1, 2",
    f"INSERT INTO usage_parties SELECT party_id, day, {_RUNNING} FROM (SELECT party_id, day,"
    f" {_NAMED} FROM usage_days JOIN series ON id = series_id WHERE party_id <> 0 GROUP BY 1, 2)"
    " WINDOW past AS (PARTITION BY party_id ORDER BY day)",
)

RANGES: dict[str, tuple[int, int | None]] = {
    "all": (0, None),
    "year, cut hours at both ends": (
        START_MS + 41 * DAY_MS + 5 * HOUR_MS + 1_234_567,
        START_MS + 330 * DAY_MS + 17 * HOUR_MS + 999,
    ),
    "week, cut": (
        START_MS + 200 * DAY_MS + 7 * HOUR_MS + 77,
        START_MS + 207 * DAY_MS + 9 * HOUR_MS + 99,
    ),
    "a month": (START_MS + 31 * DAY_MS, START_MS + 62 * DAY_MS),
}
QUESTIONS: tuple[tuple[tuple[Grouping, ...], Filters], ...] = (
    (("model",), Filters()),
    (("provider",), Filters()),
    (("outcome",), Filters()),
    (("day",), Filters()),
    (("user",), Filters()),
    (("key",), Filters()),
    (("org",), Filters()),
    (("group",), Filters()),
    (("model", "day"), Filters()),
    (("model", "day"), Filters(user_id="user_00040")),
    (("user",), Filters(payer_id="org_5")),
    (("model",), Filters(payer_id="org_5")),
    (("user",), Filters(model="acme/big")),
    (("user", "model"), Filters()),
)


def main() -> None:
    """Generate, ask, and print."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory(prefix="turnpike-bench-") as folder:
        path = Path(folder) / "turnpike.db"
        generate(path, calls)
        asyncio.run(measure(path, calls))


def generate(path: Path, calls: int) -> None:
    """A database with so many calls, evenly over the year."""
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, shipped_migrations(), 0)
    for pragma in ("journal_mode=WAL", "synchronous=OFF", "cache_size=-1000000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO series (id, coarse_id, party_id, user_id, key_id, payer_id, group_id, model,"
        " provider, outcome, byok) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        _series(),
    )
    connection.executemany(
        "INSERT INTO users (id, name, tier, role, created_at_ms) VALUES (?, ?, 'pro', 'member', 0)",
        ((f"user_{user:05d}", f"name-{user:05d}") for user in range(USERS)),
    )
    connection.execute(_CALLS, {"calls": calls})
    for sql in _SUMS:
        connection.execute(sql)
    connection.execute("UPDATE ledger_clock SET high_ms = ?", (START_MS + DAYS * DAY_MS,))
    connection.execute("COMMIT")
    connection.close()


def _series() -> list[tuple[Any, ...]]:
    kinds = [(model, provider, outcome) for model, provider in OFFERS for outcome in OUTCOMES]
    found: list[tuple[Any, ...]] = [
        (n, n, 0, "", "", "", "", *kind) for n, kind in enumerate(kinds, start=1)
    ]
    for user in range(USERS):
        name, org = f"user_{user:05d}", user % 5 == 0
        who = (
            name,
            f"key_{user:05d}",
            f"org_{user % 20}" if org else name,
            f"group_{user % 40}" if org else "",
        )
        party = len(found) + 1
        found.append((party, 0, 0, *who, "", "", ""))
        found += [(party + n, n, party, *who, *kind) for n, kind in enumerate(kinds, start=1)]
    return found


async def measure(path: Path, calls: int) -> None:
    """Close the months, then ask everything."""
    database = SqliteDatabase(path, SystemClock())
    await database.open()
    try:
        began = time.perf_counter()
        months = await close_months(database, SystemClock())
        _print(what="close months", months=len(months), ms=_ms(began))
        log = UsageLog(database)
        for by, filters in QUESTIONS:
            for name, (since_ms, until_ms) in RANGES.items():

                async def ask(
                    by: tuple[Grouping, ...] = by,
                    filters: Filters = filters,
                    since_ms: int = since_ms,
                    until_ms: int | None = until_ms,
                ) -> int:
                    return len((await log.summary(by, since_ms, until_ms, filters)).data)

                ms, groups = await _best(ask)
                only = filters.given()
                _print(calls=calls, by=",".join(by), only=only, range=name, groups=groups, ms=ms)
        for only in ({}, {"user_id": "user_00042"}, {"payer_id": "org_5", "outcome": "failed"}):

            async def page(only: dict[str, str] = only) -> int:
                return len(await log.rows(100, filters=Filters(**only)))

            ms, rows = await _best(page)
            _print(calls=calls, what="a page of calls", only=only, rows=rows, ms=ms)
    finally:
        await database.close()


async def _best(ask: Callable[[], Awaitable[int]]) -> tuple[int, int]:
    took, found = [], 0
    for _ in range(3):
        began = time.perf_counter()
        found = await ask()
        took.append(_ms(began))
    return min(took), found


def _ms(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)


def _print(**line: object) -> None:
    print(json.dumps({"bench": "usage", **line}), flush=True)


if __name__ == "__main__":
    main()
