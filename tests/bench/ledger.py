"""Holds and settlements per second with 64 concurrent tasks, beside raw inserts of the same rows.

Prints one JSON line. Pin it to one core to see what the gateway will have: event loop and writer
thread share that core there. ``python -m tests.bench.ledger [CALLS]``
"""

import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from app.cli.interpreter import let_go_less
from app.clock import SystemClock
from app.ids import new_call_id
from app.ledger.entries import CreditTerms, HoldRequest, Outcome, Standing, UsageRow
from app.ledger.sqlite import SqliteLedger
from app.ledger.standing import Ask
from app.storage.sqlite import SqliteDatabase

TASKS = 64
ROUNDS = 3
PAYERS = 16
STANDING = Standing(
    payer_id="",
    payer_name="bench",
    terms=CreditTerms(tier="pro", monthly_credit_nano_usd=2 * 10**9, overage=True),
)
TABLES = (
    "accounts",
    "grants",
    "wallets",
    "dues",
    "entries",
    "holds",
    "settlements",
    "series",
    "usage",
    "usage_hours",
    "usage_days",
    "usage_parties",
)


class Payers:
    """Everybody pays for himself, as he goes. Implements ``Standings``."""

    def of_caller(self, _ask: Ask, user_id: str, _key_id: str, _bill_to: str | None) -> Standing:
        return replace(STANDING, payer_id=user_id)

    def of_payer(self, _ask: Ask, _payer_id: str) -> CreditTerms:
        return STANDING.terms


async def call(ledger: SqliteLedger, payer: str, now_ms: int) -> None:
    """One request's work for the ledger: a hold, then its settlement with the usage row."""
    call_id = new_call_id()
    key = "key_" + payer[5:]
    await ledger.place_hold(
        HoldRequest(
            call_id=call_id,
            user_id=payer,
            key_id=key,
            offers=(("mock", "acme/tiny"),),
            amount_nano_usd=1_000_000,
            floor_nano_usd=1_000_000,
            admitted_at_ms=now_ms,
            expires_at_ms=now_ms + 1_800_000,
        )
    )
    usage = UsageRow(
        call_id=call_id,
        at_ms=now_ms,
        user_id=payer,
        key_id=key,
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


async def measure(path: Path, calls: int) -> tuple[float, float, list[float]]:
    """Seconds for all calls after a warm-up, of the processor too, and each call's own."""
    clock = SystemClock()
    database = SqliteDatabase(path)
    ledger = SqliteLedger(database, clock, Payers())
    await database.open()
    took: list[float] = []

    async def client(number: int, left: Iterator[int]) -> None:
        payer = f"user_{number % PAYERS:032x}"
        for _ in left:
            start = time.perf_counter()
            await call(ledger, payer, clock.now_ms())
            took.append(time.perf_counter() - start)

    async def clients(calls: int) -> None:
        left = iter(range(calls))
        await asyncio.gather(*(client(number, left) for number in range(TASKS)))

    await clients(calls // 10)  # statements are prepared, months are booked
    took.clear()
    start, cpu = time.perf_counter(), time.process_time()
    await clients(calls)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    await database.close()
    return seconds, cpu, took


def raw_inserts(source: Path, target: Path, transactions: int) -> float:
    """Seconds to insert the same rows into the same tables by executemany, in so many commits."""
    reader = sqlite3.connect(source)
    connection = sqlite3.connect(target, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    work = []
    for table in TABLES:
        ((schema,),) = reader.execute(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
        ).fetchall()
        connection.execute(schema)
        # A settled call was a hold once: its row counts, though it is gone.
        query = "SELECT * FROM settlements" if table == "holds" else f"SELECT * FROM {table}"
        rows = reader.execute(query).fetchall()
        if table == "holds":
            rows = [(*row[:3], row[1], row[1], "acme/tiny", 1, 1, 1, 1, "", 0) for row in rows]
        if rows:
            marks = ",".join("?" * len(rows[0]))
            work.append((f"INSERT INTO {table} VALUES ({marks})", rows))
    start = time.perf_counter()
    for part in range(transactions):
        connection.execute("BEGIN")
        for sql, rows in work:
            since, until = (len(rows) * (part + n) // transactions for n in (0, 1))
            if since < until:
                connection.executemany(sql, rows[since:until])
        connection.execute("COMMIT")
    seconds = time.perf_counter() - start
    connection.close()
    reader.close()
    target.unlink()
    return seconds


class Round(NamedTuple):
    """One round: all of it in the same minute, so that noise meets every part alike."""

    seconds: float
    cpu_s: float
    raw_s: float
    raw_durable_s: float
    took: list[float]


def one_round(calls: int) -> Round:
    """The ledger, then the same rows in one transaction, then in groups as the ledger has them."""
    with tempfile.TemporaryDirectory() as folder:
        path, raw = Path(folder, "ledger.sqlite3"), Path(folder, "raw.sqlite3")
        try:
            import uvloop

            seconds, cpu, took = uvloop.run(measure(path, calls))
        except ImportError:
            seconds, cpu, took = asyncio.run(measure(path, calls))
        more = (calls + calls // 10) / calls  # the warm-up's rows are in the tables too
        raw_s = raw_inserts(path, raw, 1) / more
        durable_s = raw_inserts(path, raw, calls * 2 // TASKS) / more
        return Round(seconds, cpu, raw_s, durable_s, took)


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    let_go_less()
    rounds = [one_round(calls) for _ in range(ROUNDS)]
    took = sorted(each for found in rounds for each in found.took)

    def middle(of: Callable[[Round], float]) -> float:
        return statistics.median(of(each) for each in rounds)

    print(
        json.dumps(
            {
                "bench": "ledger",
                "cores": len(os.sched_getaffinity(0)),
                "tasks": TASKS,
                "calls": calls,
                "rounds": ROUNDS,
                "calls_per_second": round(calls / middle(lambda each: each.seconds)),
                "cpu_us_per_call": round(middle(lambda each: each.cpu_s) / calls * 1e6, 1),
                "p50_ms": round(took[len(took) // 2] * 1e3, 2),
                "p99_ms": round(took[len(took) * 99 // 100] * 1e3, 2),
                "raw_calls_per_second": round(calls / middle(lambda each: each.raw_s)),
                "raw_durable_calls_per_second": round(
                    calls / middle(lambda each: each.raw_durable_s)
                ),
                "ratio_to_raw": round(middle(lambda each: each.raw_s / each.seconds), 3),
                "ratio_to_raw_durable": round(
                    middle(lambda each: each.raw_durable_s / each.seconds), 3
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
