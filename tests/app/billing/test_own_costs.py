"""Whose calls a user may ask for, and how fast, over a real file with the shipped schema."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.billing.own_costs import OwnCosts
from app.ids import new_call_id
from app.storage.database import Transaction
from app.storage.sqlite import SqliteDatabase


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(tmp_path / "turnpike.db")
    await opened.open()
    yield opened
    await opened.close()


async def make_call(
    database: SqliteDatabase,
    user: str,
    *,
    payer: str | None = None,
    state: str | None = "settled",
    cost: int = 7,
) -> str:
    """A call's rows as the ledger leaves them; without a state it has not ended."""
    call_id = new_call_id()

    def unit(tx: Transaction) -> None:
        tx.execute(
            "INSERT INTO holds (call_id, payer_id, period, user_id, key_id, model,"
            " amount_nano_usd, overage, admitted_at_ms, expires_at_ms)"
            " VALUES (?, ?, '2026-11', ?, 'key_1', 'acme/tiny', 100, 0, 1, 2)",
            (call_id, payer or user, user),
        )
        if state is not None:
            tx.execute(
                "INSERT INTO settlements (call_id, payer_id, period, state, held_nano_usd,"
                " cost_nano_usd, overrun_nano_usd, ended_at_ms)"
                " VALUES (?, ?, '2026-11', ?, 100, ?, 0, 2)",
                (call_id, payer or user, state, cost if state == "settled" else 0),
            )

    await database.write(unit)
    return call_id


async def test_ended_calls_of_the_user_in_the_order_of_the_request(
    database: SqliteDatabase,
) -> None:
    settled = await make_call(database, "user_ann", cost=1200)
    free = await make_call(database, "user_ann", cost=0)
    void = await make_call(database, "user_ann", state="void")
    gave_up = await make_call(database, "user_ann", state="gave_up")
    running = await make_call(database, "user_ann", state=None)
    asked = [gave_up, running, settled, "unknown", void, settled, free, "", "'; --"]
    found = await OwnCosts(database).of("user_ann", asked)
    assert list(found.items()) == [(gave_up, 0), (settled, 1200), (void, 0), (free, 0)]
    assert await OwnCosts(database).of("user_ann", []) == {}


async def test_nobody_else_s_calls_whoever_pays(database: SqliteDatabase) -> None:
    """Not those of another user, nor of another member of an org that pays for both."""
    calls = {
        (user, payer): await make_call(database, user, payer=payer)
        for user in ("user_ann", "user_bob")
        for payer in (None, "org_1", "org_2")
    }
    for user in ("user_ann", "user_bob"):
        own = {call_id for (by, _), call_id in calls.items() if by == user}
        assert (await OwnCosts(database).of(user, list(calls.values()))).keys() == own
    for stranger in ("user_cid", "", "operator"):
        assert await OwnCosts(database).of(stranger, list(calls.values())) == {}


async def test_a_running_call_that_an_org_pays_is_left_out(database: SqliteDatabase) -> None:
    running = await make_call(database, "user_ann", payer="org_1", state=None)
    assert await OwnCosts(database).of("user_ann", [running]) == {}


async def test_every_lookup_is_by_key(database: SqliteDatabase) -> None:
    """So that the time does not grow with the number of calls that were ever made."""
    from app.billing import own_costs

    plan = await database.read(f"EXPLAIN QUERY PLAN {own_costs._COSTS}", ("[]", "user_ann"))
    steps = [step[-1] for step in plan]
    assert [step for step in steps if step.startswith("SCAN") and "asked" not in step] == []
    assert sum("PRIMARY KEY (call_id=?)" in step for step in steps) == 2
