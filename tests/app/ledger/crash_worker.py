"""What dies in the crash tests: calls against one ledger file, acknowledged line by line.

Run as a module it is a nursery: for each line ``WORK SEED PATH`` on stdin it forks a worker, which
so starts in milliseconds and shares nothing with the test, and tells its end. Lines on stdout:
``pid N``, ``ready``, ``ack CALL COST``, ``died STATUS``.

``serve`` calls until it is killed. ``fill`` does so on a disk that fills up. ``script`` waits for
SIGUSR1, then does a little of everything once, so that a fault can be put at each write of it.
"""

import asyncio
import os
import random
import resource
import signal
import sys
from pathlib import Path

from app.clock import SystemClock
from app.errors import TurnpikeError
from app.ids import new_call_id
from app.ledger.accounts import GrantKind
from app.ledger.entries import (
    Adjustment,
    CreditTerms,
    HoldRequest,
    IdempotencyKey,
    NewGrant,
    Outcome,
    StoredAnswer,
    UsageRow,
)
from app.ledger.sqlite import SqliteLedger
from app.ledger.store import LedgerUnavailable
from app.storage.migrate import DatabaseRefused
from app.storage.sqlite import SqliteDatabase
from tests.app.ledger.books import HandStandings

TERMS = CreditTerms(tier="pro", monthly_credit_nano_usd=2 * 10**9, overage=True)
TASKS = 16
DONE, STOPPED, NOT_OPENED = 0, 7, 8
NOT_STOPPED, NOT_FAILED, REFUSED_A_CALL, RAN_OUT, FAULTY = 3, 4, 5, 6, 9


class _Clock(SystemClock):
    """The machine's own, which nobody doubts."""

    suspended = False


def main() -> None:
    """The nursery."""
    for line in sys.stdin:
        work, seed, path = line.split()
        if work == "script":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        worker = os.fork()
        if worker == 0:
            try:
                _work(work, int(seed), Path(path))
            finally:
                os._exit(FAULTY)
        _tell(f"pid {worker}")
        _, status = os.waitpid(worker, 0)
        _tell(f"died {os.waitstatus_to_exitcode(status)}")


def _work(work: str, seed: int, path: Path) -> None:
    if work == "script":
        signal.sigwait({signal.SIGUSR1})
        os._exit(asyncio.run(_script(path, seed)))
    # Files that may not grow past a limit are a full disk that needs no root.
    asyncio.run(_serve(path, seed, 1_500_000 if work == "fill" else None))
    os._exit(RAN_OUT)


def _tell(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def _open(path: Path) -> tuple[SqliteDatabase, SqliteLedger]:
    clock = _Clock()
    database = SqliteDatabase(path, clock)
    return database, SqliteLedger(database, clock, HandStandings(TERMS))


async def _serve(path: Path, seed: int, file_bytes_max: int | None) -> None:
    chance = random.Random(seed)
    database, ledger = _open(path)
    await database.open()
    await ledger.recover()
    _tell("ready")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if file_bytes_max is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, hard))

    async def client() -> None:
        while True:
            await _call(ledger, chance)

    try:
        await asyncio.gather(*(client() for _ in range(TASKS)))
    except LedgerUnavailable:
        # The disk is well again, and the ledger must not care.
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        os._exit(await _stays_stopped(database, ledger, chance))


async def _stays_stopped(
    database: SqliteDatabase, ledger: SqliteLedger, chance: random.Random
) -> int:
    for _ in range(10):
        await asyncio.sleep(0.01)
        try:
            await _call(ledger, chance)
        except LedgerUnavailable:
            continue
        return NOT_STOPPED
    stopped = database.failed is not None
    await database.close()
    return STOPPED if stopped else NOT_FAILED


async def _script(path: Path, seed: int) -> int:
    """A little of everything, in groups that follow each other."""
    chance = random.Random(seed)
    database, ledger = _open(path)
    try:
        await database.open()
        await ledger.recover()
        _tell("ready")
        await ledger.give(
            NewGrant(
                payer_id="user_0",
                kind=GrantKind.PURCHASED,
                reference=f"pay_{seed}",
                amount_nano_usd=1_000,
            )
        )
        for _ in range(2):
            await asyncio.gather(*(_call(ledger, chance) for _ in range(3)))
        await _late_call(ledger, chance)
        await ledger.adjust(
            Adjustment(
                id=f"adj_{seed}",
                payer_id="user_0",
                amount_nano_usd=-5,
                reason="a test",
                author="a test",
            )
        )
        await ledger.place_hold(_request("user_9"))
    except DatabaseRefused:
        return NOT_OPENED
    except LedgerUnavailable:
        return await _stays_stopped(database, ledger, chance)
    await database.close()
    return DONE


async def _call(ledger: SqliteLedger, chance: random.Random) -> None:
    payer = f"user_{chance.randint(0, 5)}"
    request = _request(payer)
    try:
        await ledger.place_hold(request)
        ended = await ledger.settle_hold(
            request.call_id, chance.randint(1, 1_200_000), _usage(request), lost_nano_usd=1
        )
    except LedgerUnavailable:
        raise
    except TurnpikeError:
        os._exit(REFUSED_A_CALL)
    _tell(f"ack {request.call_id} {ended.cost_nano_usd}")


async def _late_call(ledger: SqliteLedger, chance: random.Random) -> None:
    """A call whose cost comes later, under an Idempotency-Key."""
    key = IdempotencyKey(key=f"key_{chance.random()}", request_hash=bytes(32))
    request = _request("user_1", key)
    await ledger.place_hold(request)
    await ledger.bind_request(request.call_id, "mock", request.call_id)
    answer = StoredAnswer(status=200, body=b"{}")
    await ledger.await_cost(
        request.call_id, _usage(request), give_up_at_ms=request.expires_at_ms, answer=answer
    )
    ended = await ledger.resolve_cost(request.call_id, 77_000)
    _tell(f"ack {request.call_id} {ended.cost_nano_usd}")


def _request(payer: str, key: IdempotencyKey | None = None) -> HoldRequest:
    now_ms = _Clock().now_ms()
    return HoldRequest(
        call_id=new_call_id(),
        user_id=payer,
        key_id="key_1",
        offers=(("mock", "acme/tiny"),),
        amount_nano_usd=1_000_000,
        floor_nano_usd=1_000_000,
        admitted_at_ms=now_ms,
        expires_at_ms=now_ms + 60_000,
        idempotency=key,
    )


def _usage(request: HoldRequest) -> UsageRow:
    return UsageRow(
        call_id=request.call_id,
        at_ms=request.admitted_at_ms,
        user_id=request.user_id,
        key_id=request.key_id,
        payer_id=request.user_id,
        model=request.model,
        provider="mock",
        outcome=Outcome.COMPLETED,
        streamed=False,
        attempts=2,
        input_tokens=10,
    )


if __name__ == "__main__":
    main()
