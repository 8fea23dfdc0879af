"""What dies in the crash tests: calls against one ledger file, acknowledged over a pipe.

Run in a fork server's child, which starts in milliseconds and shares nothing with the test.
"""

import asyncio
import os
import random
import resource
from multiprocessing.connection import Connection
from pathlib import Path

from app.clock import SystemClock, period_of
from app.errors import TurnpikeError
from app.ids import new_call_id
from app.ledger.entries import CreditTerms, HoldRequest, Outcome, UsageRow
from app.ledger.sqlite import SqliteLedger
from app.ledger.store import LedgerUnavailable
from app.storage.sqlite import SqliteDatabase

TERMS = CreditTerms(tier="pro", monthly_credit_nano_usd=2 * 10**9, overage=True)
TASKS = 16


def serve_until_killed(path: str, pipe: Connection, seed: int) -> None:
    """Call for ever; each settlement is written to the pipe after it was acknowledged."""
    asyncio.run(_serve(path, pipe, seed, None))


def serve_until_the_disk_is_full(path: str, pipe: Connection, seed: int) -> None:
    """The same, but files may not grow past a limit; ends by itself, with status 0 if rightly."""
    asyncio.run(_serve(path, pipe, seed, 1_500_000))


async def _serve(path: str, pipe: Connection, seed: int, file_bytes_max: int | None) -> None:
    chance = random.Random(seed)
    clock = SystemClock()
    database = SqliteDatabase(Path(path), clock)
    ledger = SqliteLedger(database, clock)
    await database.open()
    await ledger.recover()
    os.write(pipe.fileno(), b"ready\n")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if file_bytes_max is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, hard))

    async def client() -> None:
        while True:
            await _call(ledger, clock, chance, pipe)

    try:
        await asyncio.gather(*(client() for _ in range(TASKS)))
    except LedgerUnavailable:
        # The disk is well again, and the ledger must not care.
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        for _ in range(10):
            await asyncio.sleep(0.01)
            try:
                await _call(ledger, clock, chance, pipe)
            except LedgerUnavailable:
                continue
            os._exit(3)
        stopped = database.failed is not None
        await database.close()
        os._exit(0 if stopped else 4)


async def _call(
    ledger: SqliteLedger, clock: SystemClock, chance: random.Random, pipe: Connection
) -> None:
    call_id, now_ms = new_call_id(), clock.now_ms()
    payer = f"user_{chance.randint(0, 5)}"
    request = HoldRequest(
        call_id=call_id,
        payer_id=payer,
        user_id=payer,
        key_id="key_1",
        model="acme/tiny",
        amount_nano_usd=1_000_000,
        floor_nano_usd=1_000_000,
        period=period_of(now_ms),
        terms=TERMS,
        admitted_at_ms=now_ms,
        expires_at_ms=now_ms + 60_000,
    )
    usage = UsageRow(
        call_id=call_id,
        at_ms=now_ms,
        user_id=payer,
        key_id="key_1",
        payer_id=payer,
        model="acme/tiny",
        provider="mock",
        outcome=Outcome.COMPLETED,
        streamed=False,
        attempts=1,
    )
    try:
        await ledger.place_hold(request)
        ended = await ledger.settle_hold(call_id, chance.randint(1, 1_200_000), usage)
    except LedgerUnavailable:
        raise
    except TurnpikeError:
        os._exit(5)
    os.write(pipe.fileno(), f"{call_id} {ended.cost_nano_usd}\n".encode())
