"""The law of every ledger store about probes: the house pays, once per id, and it shows."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from app.errors import Conflict
from app.ledger.entries import ProbeRow
from app.ledger.statement import open_statement
from tests.app.ledger.books import DECEMBER_MS, PERIOD, START_MS, Books, opened

ROW = ProbeRow(
    at_ms=START_MS, provider="mock", model="acme/tiny", calls=4, input_tokens=90, output_tokens=60
)


async def test_the_house_bears_what_a_probe_costs(books: Books) -> None:
    await books.ledger.book_probe("probe_1", ROW, 700)
    await books.ledger.book_probe("probe_2", replace(ROW, at_ms=DECEMBER_MS), 5)
    assert await books.rows(
        "SELECT period, kind, subject, debit_account_id, credit_account_id, amount_nano_usd"
        " FROM entries ORDER BY seq"
    ) == [
        (PERIOD, "probe", "probe/probe_1", -7, 2, 700),
        ("2026-12", "probe", "probe/probe_2", -7, 2, 5),
    ]
    assert await books.rows("SELECT * FROM probe_costs WHERE probe_id = 'probe_1'") == [
        ("probe_1", START_MS, "mock", "acme/tiny", 4, 90, 60, 700)
    ]
    for table in ("usage", "usage_hours", "usage_days", "usage_parties", "settlements", "wallets"):
        assert await books.rows(f"SELECT count(*) FROM {table}") == [(0,)]
    found = await books.audit()
    assert (found.problems, found.house["probes"], found.house["cogs"]) == ([], -705, 705)


async def test_a_probe_is_booked_once(books: Books) -> None:
    same = [books.ledger.book_probe("probe_1", ROW, 700) for _ in range(5)]
    await asyncio.gather(*same)  # in one group, or in several
    await books.ledger.book_probe("probe_1", ROW, 700)
    with pytest.raises(Conflict, match="probe_1"):
        await books.ledger.book_probe("probe_1", ROW, 701)
    assert await books.rows("SELECT sum(amount_nano_usd), count(*) FROM entries") == [(700, 1)]
    assert (await books.audit()).problems == []


async def test_a_probe_that_cost_nothing_leaves_no_row(books: Books) -> None:
    await books.ledger.book_probe("probe_1", ROW, 0)
    assert await books.rows("SELECT count(*) FROM entries") == [(0,)]
    assert await books.rows("SELECT count(*) FROM probe_costs") == [(0,)]


@pytest.mark.parametrize(
    ("row", "cost"),
    [
        (ROW, -1),
        (ROW, 10**18 + 1),
        (ROW, True),
        (replace(ROW, input_tokens=-1), 5),
        (replace(ROW, output_tokens=2**63), 5),
        (replace(ROW, at_ms=-1), 5),
        (replace(ROW, at_ms=10**15), 5),
        (replace(ROW, model="\ud800"), 5),
    ],
)
async def test_what_no_row_could_hold_is_refused_and_stops_nothing(
    books: Books, row: ProbeRow, cost: int
) -> None:
    with pytest.raises(ValueError, match=r"."):
        await books.ledger.book_probe("probe_1", row, cost)
    await books.ledger.book_probe("probe_1", ROW, 7)
    assert (await books.audit()).problems == []


async def test_the_houses_statement_has_each_probe(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as books:
        await books.ledger.book_probe("probe_1", ROW, 700)
        await books.ledger.book_probe("probe_2", ROW, 5)
    with open_statement(tmp_path / "ledger.db", "house:probes") as statement:
        assert [(line.subject, line.balance_nano_usd) for line in statement.lines()] == [
            ("probe/probe_1", -700),
            ("probe/probe_2", -705),
        ]
