"""The audit sees what it is there for: each kind of damage, done behind the triggers' back."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from app.ledger.audit import QUESTIONS, audit_file
from app.ledger.audit_questions import PREPARE, Area
from app.storage.migrate import DatabaseRefused
from tests.app.ledger.books import opened, statement
from tests.app.ledger.damage import DAMAGE, FORGED, do, keep_books


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "ledger.db"
    asyncio.run(keep_books(path))
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path))


def test_clean_books_pass(path: Path) -> None:
    found = audit_file(path)
    assert found.problems == []
    assert (found.calls, found.open_holds) == (5, 2)
    given = 4 * 10**8 + 2 * 10**9 + 10**8  # ann, cleo, dan, eve; ben; dan again
    assert found.house == {
        "granted": -given,
        "cogs": 10**8 + 1_000 + 11 + 3 * 10**9 + 9 + 21,
        "overrun": -1_000,
        "forgiven": -9,
        "failover_loss": -11,
        "sold": -5_000,
        "expired": 10**8,
        "adjusted": -400,
        "fees": 9 * 10**9,
        "endpoints": 40,
        "probes": -21,
    }
    assert (found.chain_seq, len(found.chain_head)) == (found.entries, 64)


def test_every_question_has_damage_that_makes_it_speak(path: Path) -> None:
    """Any of it would do for the audit as a whole: here each question has to find something."""
    silent = {question.text: question for question in QUESTIONS}
    copy = path.with_name("copy.db")
    for sql in (*DAMAGE.values(), *FORGED.values()):
        shutil.copy(path, copy)
        do(copy, sql, forge=True)
        connection = sqlite3.connect(copy)
        for prepare in PREPARE:
            connection.execute(prepare)
        for text, question in list(silent.items()):
            if connection.execute(question.sql).fetchall():
                del silent[text]
        connection.close()
    assert list(silent) == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(path: Path, damage: str) -> None:
    do(path, DAMAGE[damage])
    assert audit_file(path).problems != []


@pytest.mark.parametrize("forged", FORGED)
def test_the_chain_shows_every_change_of_the_journal(path: Path, forged: str) -> None:
    do(path, FORGED[forged])
    found = audit_file(path)
    if forged == "its end":  # the chain cannot know how long it was; the sums do
        assert found.problems != []
    else:
        assert "does not match its hash" in found.problems[0]
        assert found.findings[0].area is Area.JOURNAL


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_chain_does_not_hide_what_was_changed(path: Path, forged: str) -> None:
    do(path, FORGED[forged], forge=True)
    found = audit_file(path)
    assert found.problems != []
    assert not any("hash" in problem for problem in found.problems)


def test_another_schema_is_not_audited(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entries (seq)")
    connection.close()
    with pytest.raises(DatabaseRefused, match="older Turnpike, or by another program"):
        audit_file(path)
    with pytest.raises(DatabaseRefused, match="no database at"):
        audit_file(tmp_path / "nothing.db")
    path.write_bytes(b"x" * 4096)
    with pytest.raises(DatabaseRefused, match="cannot be read as a database"):
        audit_file(path)


def test_an_audit_says_how_far_it_is(path: Path) -> None:
    told: list[tuple[int, int]] = []
    audit_file(path, lambda done, steps: told.append((done, steps)))
    steps = told[0][1]
    assert [done for done, _ in told] == list(range(steps))


@pytest.mark.parametrize("table", ["entries", "settlements", "accounts", "adjustments"])
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
            "INSERT INTO holds SELECT call_id, payer_id, period, '', '', '', 0, 0, 0, 0, '', 0"
            " FROM settlements",
            "DELETE FROM grants",
        ):
            with pytest.raises(sqlite3.IntegrityError):
                await books.database.write(statement(sql))
        assert books.ledger.open_holds() == 2
