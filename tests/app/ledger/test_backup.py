"""I19, B13: backups of a ledger under load are whole; what they restore to goes on as if nothing
had been, and gives nobody anything twice.

``TURNPIKE_BACKUPS`` sets how many.
"""

import asyncio
import os
import random
from pathlib import Path

import pytest

from app.ledger.accounts import GrantKind
from app.ledger.audit import audit_file
from app.ledger.entries import NewGrant
from app.storage.backup import make_backup
from app.storage.restore import restore_backup
from tests.app.ledger.books import Books, HandStandings, hold, opened, used
from tests.app.ledger.crash_worker import TERMS

BACKUPS = int(os.environ.get("TURNPIKE_BACKUPS", "20"))
CLIENTS = 8
USERS = [f"user_{number}" for number in range(5)]
GIVEN = "SELECT payer_id, kind, reference, granted_nano_usd FROM grants ORDER BY id"


def bought(user: str) -> NewGrant:
    return NewGrant(
        payer_id=user, kind=GrantKind.PURCHASED, reference="pay_1", amount_nano_usd=1_000
    )


async def call_on(books: Books, acknowledged: dict[str, int], stop: asyncio.Event) -> None:
    """Calls one after the other; some wait for a cost that comes later."""
    while not stop.is_set():
        user = random.choice(USERS)
        request = hold(1_000_000, user=user)
        await books.ledger.place_hold(request)
        row = used(request.call_id, payer=user)
        if random.random() < 0.1:
            await books.ledger.bind_request(request.call_id, "mock", request.call_id)
            await books.ledger.await_cost(request.call_id, row, give_up_at_ms=request.expires_at_ms)
            await asyncio.sleep(0.02)
            ended = await books.ledger.resolve_cost(request.call_id, 5_000)
        else:
            cost = random.randint(1, 10_000)
            ended = await books.ledger.settle_hold(request.call_id, cost, row)
        acknowledged[request.call_id] = ended.cost_nano_usd


@pytest.mark.timeout(60 + 5 * BACKUPS)
async def test_backups_under_load_restore_to_the_same_books(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    archives: list[tuple[Path, dict[str, int]]] = []
    stop = asyncio.Event()
    open_seen = 0
    async with opened(tmp_path / "data" / "turnpike.db", standings=HandStandings(TERMS)) as books:
        for user in USERS:
            await books.ledger.give(bought(user))
        clients = [asyncio.create_task(call_on(books, acknowledged, stop)) for _ in range(CLIENTS)]
        for number in range(BACKUPS):
            before = dict(acknowledged)
            target = tmp_path / f"b{number}.tar"
            await asyncio.to_thread(
                make_backup, tmp_path / "data", target, prove=audit_file, now_ms=number
            )
            archives.append((target, before))
        stop.set()
        await asyncio.gather(*clients)
        assert (await books.audit()).problems == []
        given = await books.rows(GIVEN)
    assert len(acknowledged) > BACKUPS
    for number, (target, before) in enumerate(archives):
        folder = tmp_path / f"restored{number}"
        restore_backup(target, folder, prove=audit_file, now_ms=0)
        open_seen += await goes_on(folder / "turnpike.db", before, given)
    assert open_seen > 0, "no backup ever caught a call: they prove nothing"


async def goes_on(path: Path, acknowledged: dict[str, int], given: list[tuple[object, ...]]) -> int:
    """Nothing that was acknowledged before the backup is missing; nobody is given a thing twice."""
    async with opened(path, standings=HandStandings(TERMS)) as books:
        caught = books.ledger.open_holds()
        on_disk = dict(await books.rows("SELECT call_id, cost_nano_usd FROM settlements"))
        assert {call: on_disk.get(call) for call in acknowledged} == acknowledged
        await books.ledger.recover()
        for pending in await books.ledger.pending_costs("mock", 1000):  # asked again, by its id
            assert pending.upstream_id == pending.call_id
            ended = await books.ledger.resolve_cost(pending.call_id, 5_000)
            assert ended.cost_nano_usd == 5_000
        for user in USERS:
            await books.ledger.give(bought(user))
        await books.ledger.catch_up(USERS)
        assert set(await books.rows(GIVEN)) <= set(given)
        assert books.ledger.open_holds() == 0
        assert (await books.audit()).problems == []
        return caught
