"""What dies in the crash tests: calls against one ledger file, acknowledged line by line.

Run as a module it is a nursery: for each line ``serve SEED`` or ``fill SEED`` on stdin it forks a
worker, which so starts in milliseconds and shares nothing with the test, and tells its end. Lines
on stdout: ``pid N``, ``ready``, ``ack CALL COST``, ``died STATUS``.
"""

import asyncio
import os
import random
import resource
import sys
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


def main() -> None:
    """The nursery."""
    for line in sys.stdin:
        work, seed = line.split()
        worker = os.fork()
        if worker == 0:
            # Files that may not grow past a limit are a full disk that needs no root.
            asyncio.run(_serve(sys.argv[1], int(seed), 1_500_000 if work == "fill" else None))
            os._exit(6)
        _tell(f"pid {worker}")
        _, status = os.waitpid(worker, 0)
        _tell(f"died {os.waitstatus_to_exitcode(status)}")


def _tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def _serve(path: str, seed: int, file_bytes_max: int | None) -> None:
    chance = random.Random(seed)
    clock = SystemClock()
    database = SqliteDatabase(Path(path), clock)
    ledger = SqliteLedger(database, clock)
    await database.open()
    await ledger.recover()
    _tell("ready")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if file_bytes_max is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, hard))

    async def client() -> None:
        while True:
            await _call(ledger, clock, chance)

    try:
        await asyncio.gather(*(client() for _ in range(TASKS)))
    except LedgerUnavailable:
        # The disk is well again, and the ledger must not care.
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        for _ in range(10):
            await asyncio.sleep(0.01)
            try:
                await _call(ledger, clock, chance)
            except LedgerUnavailable:
                continue
            os._exit(3)
        stopped = database.failed is not None
        await database.close()
        os._exit(0 if stopped else 4)


async def _call(ledger: SqliteLedger, clock: SystemClock, chance: random.Random) -> None:
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
    _tell(f"ack {call_id} {ended.cost_nano_usd}")


if __name__ == "__main__":
    main()
