"""The audit sees what it is there for: each kind of damage, done behind the triggers' back."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from app.ledger.audit import audit_file
from tests.app.ledger.books import FREE, PRO, hold, opened, statement, used

DAMAGE = {
    "an amount changed": "UPDATE entries SET amount_nano_usd = amount_nano_usd + 1 WHERE seq = 2",
    "a grant's entry changed": "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'grant'",
    "an entry moved": "UPDATE entries SET debit_account_id = 6 WHERE kind = 'charge'",
    "an entry lost": "DELETE FROM entries WHERE kind = 'overrun'",
    "an account lost": "DELETE FROM accounts WHERE id = 5",
    "a posted sum changed": "UPDATE balances SET posted_nano_usd = posted_nano_usd - 1",
    "a held sum changed": "UPDATE balances SET held_nano_usd = held_nano_usd + 1 WHERE overage = 0",
    "a credit changed": "UPDATE balances SET granted_nano_usd = granted_nano_usd + 5",
    "a grant lost": "DELETE FROM grants WHERE tier = 'free'",
    "a settlement's cost changed": "UPDATE settlements SET cost_nano_usd = 3 WHERE state='settled'",
    "a settlement lost": "DELETE FROM settlements WHERE state = 'void'",
    "a usage row lost": "DELETE FROM usage WHERE cost_nano_usd > 0",
    "a usage row's cost changed": "UPDATE usage SET cost_nano_usd = cost_nano_usd + 1",
    "a usage row doubled": "INSERT INTO usage SELECT 1, call_id, '', '', '', '', '', '', 0, 0, 0,"
    " 0, 0, 0, 0, 0, 0, 0, 0, cost_nano_usd FROM usage",
    "a hold lost": "DELETE FROM holds",
    "a hold's amount changed": "UPDATE holds SET amount_nano_usd = 1",
    "a hold that ended is back": "INSERT INTO holds SELECT call_id, payer_id, period, '', '', '',"
    " 0, 0, 0, 0 FROM settlements LIMIT 1",
    "a give-up undone": "UPDATE settlements SET state = 'void' WHERE state = 'gave_up'",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "ledger.db"
    asyncio.run(_keep_books(path))
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path))


async def _keep_books(path: Path) -> None:
    """Books with one of everything."""
    async with opened(path) as books:
        ledger = books.ledger
        over = hold(60_000_000)
        await ledger.place_hold(over)
        await ledger.settle_hold(over.call_id, 10**8 + 1_000, used(over.call_id))
        past = hold(3 * 10**9, terms=PRO, payer="user_ben")
        await ledger.place_hold(past)
        await ledger.settle_hold(past.call_id, 3 * 10**9, used(past.call_id, payer="user_ben"))
        for payer in ("user_cleo", "user_dan"):
            voided = hold(10, terms=FREE, payer=payer)
            await ledger.place_hold(voided)
            await ledger.void_hold(voided.call_id, used(voided.call_id, payer=payer))
        expired = hold(10, payer="user_dan", expires_at_ms=0)
        await ledger.place_hold(expired)
        await ledger.give_up_expired(1)
        await ledger.settle_hold(expired.call_id, 9, used(expired.call_id))
        await ledger.place_hold(hold(500, payer="user_cleo"))


async def test_clean_books_pass(path: Path) -> None:
    found = audit_file(path)
    assert found.problems == []
    assert (found.calls, found.open_holds) == (5, 1)
    assert found.house == {
        "granted": -(4 * 10**8 - 10**8 + 2 * 10**9),
        "cogs": 10**8 + 1_000 + 3 * 10**9 + 9,
        "overrun": -1_000,
        "forgiven": -9,
    }


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found(path: Path, damage: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA ignore_check_constraints=1")
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='trigger'"):
        connection.execute(f"DROP TRIGGER {name}")
    assert connection.execute(DAMAGE[damage]).rowcount > 0
    connection.commit()
    connection.close()
    assert audit_file(path).problems != []


@pytest.mark.parametrize("table", ["entries", "settlements", "grants", "accounts"])
async def test_what_only_grows_refuses_the_rest(path: Path, table: str) -> None:
    async with opened(path) as books:
        for sql in (
            f"DELETE FROM {table}",
            f"UPDATE {table} SET rowid = rowid"
            if table in ("entries", "accounts")
            else f"UPDATE {table} SET period = 'x'",
            f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                await books.database.write(statement(sql))
        assert (await books.audit()).problems == []


async def test_a_hold_goes_by_its_settlement_only(path: Path) -> None:
    async with opened(path) as books:
        for sql in (
            "DELETE FROM holds",
            "UPDATE holds SET amount_nano_usd = 0",
            "INSERT INTO holds SELECT call_id, payer_id, period, '', '', '', 0, 0, 0, 0"
            " FROM settlements",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                await books.database.write(statement(sql))
        assert books.ledger.open_holds() == 1
