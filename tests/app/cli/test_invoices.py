"""``turnpike invoices``, over a data directory that a ledger has worked in."""

import asyncio
import csv
import io
from pathlib import Path

import pytest

from app.clock import month_ms
from tests.app.billing.bills import open_bills
from tests.app.cli.terminal import Inside
from tests.app.ledger.books import HandClock


@pytest.fixture
def months(inside: Inside) -> Inside:
    """Two closed months of ann, long ago, and a third that lacks its invoice."""
    inside.data_dir.mkdir(parents=True)
    asyncio.run(_work(inside.data_dir / "turnpike.db"))
    return inside


async def _work(path: Path) -> None:
    async with open_bills(path, HandClock(month_ms("2024-01")[0])) as bills:
        await bills.named("user_ann", "ann", tier="free")
        for period in ("2024-01", "2024-02", "2024-03"):
            bills.at(period)
            await bills.closing.run()
            await bills.call("user_ann", 1_000_000)


def test_list_show_and_close(months: Inside) -> None:
    listed = months.out("invoices", "list").splitlines()
    assert listed[0] == "NUMBER\tMONTH\tPAYER\tTOTAL_DUE\tDUE\tCLOSED"
    assert [line.split("\t")[:4] for line in listed[1:]] == [
        ["TP-2", "2024-02", "ann", "$9.00"],
        ["TP-1", "2024-01", "ann", "$9.00"],
    ]
    closed = months.json("invoices", "close")
    assert len(closed["invoices"]) == 1
    assert months.out("invoices", "close") == "0 invoices were made.\n"
    assert len(months.json("invoices", "list")) == 3
    (of_march,) = months.json("invoices", "list", "--payer", "ann", "--period", "2024-03")
    assert (of_march["sequence"], of_march["number"]) == (3, "3")
    shown = months.out("invoices", "show", "TP-1")
    assert "Usage\tmock acme/tiny\t1\t$0.001\n" in shown
    assert "Total due\tann 2024-01\t\t$9.00\n" in shown


def test_the_forms_of_an_invoice(months: Inside) -> None:
    document = months.json("invoices", "show", "2")
    assert (document["number"], document["period"]) == ("TP-2", "2024-02")
    rows = list(csv.DictReader(io.StringIO(months.out("invoices", "show", "TP-2", "--csv"))))
    assert {"usage", "fee", "total_due"} <= {row["section"] for row in rows}
    page = months.out("invoices", "show", "TP-2", "--html")
    assert page.startswith("<!doctype html>")
    assert "TP-2" in page


def test_a_preview_is_not_final(months: Inside) -> None:
    assert "Due so far\tann " in months.out("invoices", "preview", "ann")
    assert months.json("invoices", "preview", "ann")["final"] is False


def test_mistakes_say_what_to_do(months: Inside) -> None:
    assert "turnpike invoices list" in months.refused("invoices", "show", "99")
    assert "named 'eve'" in months.refused("invoices", "preview", "eve")
