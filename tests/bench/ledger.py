"""Holds and settlements per second with 64 concurrent tasks, beside raw inserts of the same rows.

Prints one JSON line. Pin it to one core to see what the gateway will have: event loop and writer
thread share that core there. ``python -m tests.bench.ledger [CALLS]``
"""

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from app.clock import SystemClock, period_of
from app.ids import new_call_id
from app.ledger.entries import CreditTerms, HoldRequest, Outcome, UsageRow
from app.ledger.sqlite import SqliteLedger
from app.storage.sqlite import SqliteDatabase

TASKS = 64
PAYERS = 16
TERMS = CreditTerms(tier="pro", monthly_credit_nano_usd=2 * 10**9, overage=True)
TABLES = ("accounts", "balances", "grants", "entries", "holds", "settlements", "usage")


async def call(ledger: SqliteLedger, payer: str, now_ms: int, period: str) -> None:
    """One request's work for the ledger: a hold, then its settlement with the usage row."""
    call_id = new_call_id()
    await ledger.place_hold(
        HoldRequest(
            call_id=call_id,
            payer_id=payer,
            user_id=payer,
            key_id="key_" + payer[5:],
            model="acme/tiny",
            amount_nano_usd=1_000_000,
            floor_nano_usd=1_000_000,
            period=period,
            terms=TERMS,
            admitted_at_ms=now_ms,
            expires_at_ms=now_ms + 1_800_000,
        )
    )
    usage = UsageRow(
        call_id=call_id,
        at_ms=now_ms,
        user_id=payer,
        key_id="key_" + payer[5:],
        payer_id=payer,
        model="acme/tiny",
        provider="mock",
        outcome=Outcome.COMPLETED,
        streamed=False,
        attempts=1,
        input_tokens=120,
        output_tokens=240,
        latency_ms=12,
    )
    await ledger.settle_hold(call_id, 168_000, usage)


async def measure(path: Path, calls: int) -> tuple[float, list[float]]:
    """Seconds for all calls, and each call's own."""
    clock = SystemClock()
    database = SqliteDatabase(path)
    ledger = SqliteLedger(database, clock)
    await database.open()
    took: list[float] = []
    left = iter(range(calls))

    async def client(number: int) -> None:
        payer = f"user_{number % PAYERS:032x}"
        for _ in left:
            start = time.perf_counter()
            now_ms = clock.now_ms()
            await call(ledger, payer, now_ms, period_of(now_ms))
            took.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(TASKS)))
    seconds = time.perf_counter() - start
    await database.close()
    return seconds, took


def raw_inserts(source: Path, target: Path) -> float:
    """Seconds to insert the same rows into the same tables by executemany, in one transaction."""
    reader = sqlite3.connect(source)
    connection = sqlite3.connect(target, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    work = []
    for table in TABLES:
        (schema,) = reader.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
        ).fetchone()
        connection.execute(schema)
        # A settled call was a hold once: its row counts, though it is gone.
        query = "SELECT * FROM settlements" if table == "holds" else f"SELECT * FROM {table}"
        rows = reader.execute(query).fetchall()
        if table == "holds":
            rows = [
                (row[0], row[1], row[2], row[1], row[1], "acme/tiny", 1, 1, 1, 1) for row in rows
            ]
        marks = ",".join("?" * len(rows[0]))
        work.append((f"INSERT INTO {table} VALUES ({marks})", rows))
    start = time.perf_counter()
    connection.execute("BEGIN")
    for sql, rows in work:
        connection.executemany(sql, rows)
    connection.execute("COMMIT")
    seconds = time.perf_counter() - start
    connection.close()
    reader.close()
    return seconds


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ledger.sqlite3")
        cpu = time.process_time()
        try:
            import uvloop

            seconds, took = uvloop.run(measure(path, calls))
        except ImportError:
            seconds, took = asyncio.run(measure(path, calls))
        cpu = time.process_time() - cpu
        raw_s = raw_inserts(path, Path(folder, "raw.sqlite3"))
    took.sort()
    print(
        json.dumps(
            {
                "bench": "ledger",
                "cores": len(os.sched_getaffinity(0)),
                "tasks": TASKS,
                "calls": calls,
                "calls_per_second": round(calls / seconds),
                "cpu_us_per_call": round(cpu / calls * 1e6, 1),
                "p50_ms": round(took[len(took) // 2] * 1e3, 2),
                "p99_ms": round(took[len(took) * 99 // 100] * 1e3, 2),
                "raw_calls_per_second": round(calls / raw_s),
                "ratio_to_raw": round(raw_s / seconds, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
