"""Repair makes sums again from a sound journal, gives back what was taken too much, and no more."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from app.ledger.audit import audit_file
from app.ledger.entries import Adjustment
from app.ledger.repair import RepairFailed, plan_repair, rebuild_sums
from tests.app.ledger.books import opened
from tests.app.ledger.damage import DAMAGE, do, keep_books

SUMS = (
    "a grant's sum",
    "what a grant spent",
    "what expired of a grant",
    "a due's sum",
    "a due lost",
    "a wallet's credit",
    "a wallet's holds",
    "a wallet past its hard stop",
    "a wallet lost",
    "a limit's holds",
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("repair") / "ledger.db"
    asyncio.run(keep_books(path))
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path))


def journal(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT * FROM entries ORDER BY seq").fetchall()
    connection.close()
    return found


def test_sound_books_need_nothing(path: Path) -> None:
    plan = plan_repair(path)
    assert (plan.problems, plan.explanations, plan.rebuilds_sums) == ([], [], False)
    before = path.read_bytes()
    assert rebuild_sums(path).problems == []
    assert len(path.read_bytes()) == len(before)


@pytest.mark.parametrize("damage", SUMS)
def test_sums_are_made_again_from_the_journal(path: Path, damage: str) -> None:
    before = journal(path)
    do(path, DAMAGE[damage])
    plan = plan_repair(path)
    assert plan.rebuilds_sums
    assert plan.restore is None
    assert rebuild_sums(path).problems == []
    assert journal(path) == before


def test_a_damaged_journal_is_left_alone(path: Path) -> None:
    do(path, "UPDATE entries SET amount_nano_usd = 7 WHERE kind = 'grant'")
    plan = plan_repair(path)
    assert "turnpike --data-dir" in (plan.restore or "")
    assert not plan.rebuilds_sums
    assert plan.gives_back == []


async def test_what_a_call_was_charged_too_much_is_given_back(path: Path) -> None:
    do(path, "UPDATE settlements SET cost_nano_usd = cost_nano_usd - 30 WHERE payer_id='user_ben'")
    do(path, "UPDATE usage SET cost_nano_usd = cost_nano_usd - 30 WHERE cost_nano_usd > 2000000000")
    (back,) = plan_repair(path).gives_back
    assert (back.payer_id, back.amount_nano_usd) == ("user_ben", 30)
    async with opened(path) as books:
        adjustment = Adjustment(
            id=back.id,
            payer_id=back.payer_id,
            amount_nano_usd=back.amount_nano_usd,
            reason="a test",
            author="a test",
        )
        await books.ledger.adjust(adjustment)
        await books.ledger.adjust(adjustment)
    plan = plan_repair(path)
    assert plan.gives_back == []
    assert not [text for text in plan.problems if text.startswith("call")]


def test_sums_that_cannot_be(path: Path) -> None:
    """A journal that spends more than there was is not one that sums can be made of."""
    do(
        path,
        "INSERT INTO entries SELECT 1000, at_ms, period, kind, 'x', debit_account_id,"
        " credit_account_id, 5000000000, hash FROM entries WHERE kind = 'charge' LIMIT 1",
        forge=True,
    )
    before = path.read_bytes()
    with pytest.raises(RepairFailed, match="nothing was changed"):
        rebuild_sums(path)
    assert audit_file(path).problems != []
    assert path.read_bytes() == before
