"""Statements add up: opening, every line and closing, for every account there is."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from app.errors import NotFound
from app.ledger.audit import audit_file
from app.ledger.statement import Closing, Line, open_statement
from tests.app.ledger.books import START_MS
from tests.app.ledger.damage import NEXT_MONTH_MS, do, keep_books


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("statement") / "ledger.db"
    asyncio.run(keep_books(found))
    connection = sqlite3.connect(found)
    connection.execute("INSERT INTO users VALUES ('user_ann', 'Ann', 'free', 'member', 0)")
    connection.commit()
    connection.close()
    return found


def taken(
    path: Path, account: str, since_ms: int | None = None, until_ms: int | None = None
) -> tuple[list[Line], Closing]:
    with open_statement(path, account) as statement:
        lines = list(statement.lines(since_ms, until_ms))
        assert statement.closing is not None
        return lines, statement.closing


def test_a_payer_sees_all_that_came_and_went(path: Path) -> None:
    lines, closing = taken(path, "ann")
    assert [(line.kind, line.account, line.amount_nano_usd) for line in lines] == [
        ("grant", "user_ann:monthly:2026-11", 10**8),
        ("charge", "user_ann:monthly:2026-11", -(10**8)),
        ("purchase", "user_ann:purchased:5", 5_000),
        ("adjustment", "user_ann:adjustment:6", 700),
        ("adjustment", "user_ann:purchased:5", -300),
        ("endpoint", "user_ann:endpoint:2026-11", -40),
    ]
    assert [line.balance_nano_usd for line in lines][-1] == closing.closing_nano_usd == 5_360
    assert closing.kept_nano_usd == 5_360
    assert closing.adds_up
    assert taken(path, "user_ann") == (lines, closing)
    assert taken(path, "ANN")[0] == lines


def test_every_account_of_the_house_says_what_the_audit_says(path: Path) -> None:
    for kind, balance in audit_file(path).house.items():
        lines, closing = taken(path, f"house:{kind}")
        assert closing.closing_nano_usd == balance == sum(line.amount_nano_usd for line in lines)
        assert closing.adds_up


def test_a_statement_of_a_time_begins_where_the_one_before_ended(path: Path) -> None:
    everything, whole = taken(path, "house:granted")
    first, early = taken(path, "house:granted", None, NEXT_MONTH_MS)
    second, late = taken(path, "house:granted", NEXT_MONTH_MS)
    assert first + second == everything
    assert early.closing_nano_usd == late.opening_nano_usd != 0
    assert late.closing_nano_usd == whole.closing_nano_usd
    assert early.adds_up
    assert late.adds_up
    assert taken(path, "ann", START_MS + 1)[1].opening_nano_usd == 5_360
    assert taken(path, "ann", START_MS + 1)[1].adds_up


def test_one_account_of_a_payer(path: Path) -> None:
    lines, closing = taken(path, "user_dan:monthly:2026-11")
    assert [line.kind for line in lines] == ["grant", "expiry"]
    assert closing.closing_nano_usd == 0
    assert {line.account for line in taken(path, "user_dan:monthly")[0]} == {
        "user_dan:monthly:2026-11",
        "user_dan:monthly:2026-12",
    }


@pytest.mark.parametrize("account", ["nobody", "ann:gold", "house", "house:gold", "house:cogs:x"])
def test_what_is_not_there_is_said(path: Path, account: str) -> None:
    with pytest.raises(NotFound, match="house"), open_statement(path, account):
        pass


def test_a_balance_that_is_kept_wrongly_shows(path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(path, tmp_path))
    do(copy, "UPDATE wallets SET credit_nano_usd = credit_nano_usd + 1 WHERE payer_id='user_ann'")
    assert not taken(copy, "ann")[1].adds_up
