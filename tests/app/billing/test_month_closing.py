"""One invoice per payer and month, numbered without gaps, whatever happens to those who close."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.billing.invoice_document import Invoice
from app.billing.invoice_lines import Lines
from app.billing.invoices import Composer
from app.billing.month_closing import GRACE_MS, Closed, MonthClosing
from app.billing.tiers import Tiers
from app.clock import month_ms, period_of
from app.config import Config
from app.storage.sqlite import SqliteDatabase
from tests.app.billing.bills import SELLER, Bills, open_bills
from tests.app.ledger.books import HandClock, statement, used

ANN, BEN, ORG = "user_ann", "user_ben", "org_acme"


@pytest.fixture
async def bills(tmp_path: Path) -> AsyncIterator[Bills]:
    async with open_bills(tmp_path / "ledger.db") as opened:
        yield opened


async def test_a_month_is_closed_when_it_is_over_and_not_before(bills: Bills) -> None:
    await bills.call(ANN, 1_000)
    bills.at("2026-04", -1)
    assert await bills.closing.run() == Closed()
    bills.at("2026-04", GRACE_MS - 1)
    assert await bills.closing.run() == Closed()
    bills.at("2026-04")
    assert await bills.closing.run() == Closed(invoices=("TP-1",))
    assert await bills.closing.run() == Closed()
    (invoice,) = await bills.all()
    assert (invoice.period, invoice.sequence, invoice.final) == ("2026-03", 1, True)
    assert (invoice.payer.id, invoice.closed_at_ms) == (ANN, bills.books.clock.ms)
    assert invoice.due_on == "2026-04-01"
    assert invoice.seller.address == ("1 Toll Lane", "Gate End")


async def test_nothing_is_closed_while_the_clock_is_in_doubt(bills: Bills) -> None:
    await bills.call(ANN, 1_000)
    bills.at("2026-04")
    bills.books.clock.suspended = True
    assert await bills.closing.run() == Closed()
    bills.books.clock.suspended = False
    assert (await bills.closing.run()).invoices == ("TP-1",)


async def test_an_open_hold_of_the_month_blocks_its_payer(bills: Bills) -> None:
    late = await bills.open_call(ANN, 5_000)
    await bills.call(BEN, 1_000)
    bills.at("2026-04")
    await bills.open_call(BEN, 7)  # of the next month: no obstacle
    assert await bills.closing.run() == Closed(invoices=("TP-1",), waiting=(f"{ANN} 2026-03",))
    assert await bills.settle(late, 4_000) == 4_000
    assert await bills.closing.run() == Closed(invoices=("TP-2",))
    invoice = (await bills.all())[1]
    assert (invoice.payer.id, invoice.totals.usage_nano_usd) == (ANN, 4_000)


async def test_a_pending_cost_blocks_its_payer(bills: Bills) -> None:
    call_id = await bills.open_call(ANN, 5_000)
    ledger = bills.books.ledger
    await ledger.bind_request(call_id, "mock", "upstream-1")
    row = used(call_id, payer=ANN, at_ms=bills.books.clock.ms)
    await ledger.await_cost(call_id, row, give_up_at_ms=bills.books.clock.ms + 10**10)
    bills.at("2026-04")
    assert (await bills.closing.run()).waiting == (f"{ANN} 2026-03",)
    await ledger.resolve_cost(call_id, 4_321)
    assert (await bills.closing.run()).invoices == ("TP-1",)
    assert (await bills.all())[0].totals.usage_nano_usd == 4_321


async def test_months_wait_for_the_month_before(bills: Bills) -> None:
    late = await bills.open_call(ANN, 5_000)
    bills.at("2026-04")
    await bills.call(BEN, 1_000)
    bills.at("2026-06")
    assert await bills.closing.run() == Closed(waiting=(f"{ANN} 2026-03",))
    await bills.settle(late, 1)
    await bills.closing.run()
    assert [(i.payer.id, i.period) for i in await bills.all()] == [
        (ANN, "2026-03"),
        (BEN, "2026-04"),
    ]


async def test_two_years_with_missed_runs(tmp_path: Path) -> None:
    """The job runs twice in some months, in others never, and the process starts again often."""
    clock, path = HandClock(month_ms("2026-03")[0]), tmp_path / "ledger.db"
    expected = set()
    for month in range(24):
        async with open_bills(path, clock) as bills:
            start_ms = clock.ms
            period = period_of(start_ms)
            for payer in (ANN, BEN, ORG)[: 1 + month % 3]:
                await bills.call(payer, 1_000_000 * (month + 1))
                expected.add((payer, period))
            clock.ms = month_ms(period)[1] + 5 * GRACE_MS
            for _ in range((0, 1, 0, 0, 2)[month % 5]):
                await bills.closing.run()
    async with open_bills(path, clock) as bills:
        await bills.closing.run()
        found = await bills.all()
        assert await bills.closing.run() == Closed()
    made = [(invoice.payer.id, invoice.period) for invoice in found]
    assert len(made) == len(set(made))
    assert set(made) == expected
    assert [invoice.sequence for invoice in found] == list(range(1, len(found) + 1))
    assert sorted(invoice.period for invoice in found) == [invoice.period for invoice in found]


async def test_two_closers_race(bills: Bills) -> None:
    payers = [f"user_{number:03}" for number in range(100)]
    for payer in payers:
        await bills.call(payer, 1_000)
    bills.at("2026-04")
    other = MonthClosing(bills.books.database, bills.books.clock, bills.composer)
    first, second = await asyncio.gather(bills.closing.run(), other.run())
    assert len(first.invoices) + len(second.invoices) == len(payers)
    assert first.refused == second.refused == ()
    found = await bills.all()
    assert sorted(invoice.payer.id for invoice in found) == payers
    assert [invoice.sequence for invoice in found] == list(range(1, 101))


class Stumbling(Composer):
    """Fails at its n-th invoice, and at every later one."""

    good = 3

    def invoice(
        self,
        period: str,
        lines: Lines,
        *,
        sequence: int | None = None,
        closed_at_ms: int | None = None,
    ) -> Invoice:
        self.good -= 1
        if self.good < 0:
            raise RuntimeError("stumbled")
        return super().invoice(period, lines, sequence=sequence, closed_at_ms=closed_at_ms)


async def test_a_closer_that_fails_half_way_leaves_no_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "ledger.db", HandClock(month_ms("2026-03")[0])
    async with open_bills(path, clock) as bills:
        for number in range(8):
            await bills.call(f"user_{number}", 1_000)
        bills.at("2026-04")
        stumbling = Stumbling(SELLER, Tiers(Config()))
        with caplog.at_level(logging.ERROR):
            closed = await MonthClosing(bills.books.database, clock, stumbling).run()
        assert (len(closed.invoices), len(closed.refused)) == (3, 5)
        assert caplog.text.count("cannot be made") == 5
        await bills.call("user_0", 1_000)
        bills.at("2026-05")
    async with open_bills(path, clock) as bills:
        assert len((await bills.closing.run()).invoices) == 6
        found = await bills.all()
        assert [invoice.sequence for invoice in found] == list(range(1, 10))
        assert len({(invoice.payer.id, invoice.period) for invoice in found}) == 9


async def test_a_closer_that_is_cut_off_is_caught_up(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.db", HandClock(month_ms("2026-03")[0])
    async with open_bills(path, clock) as bills:
        for number in range(200):
            await bills.call(f"user_{number:03}", 1_000)
        bills.at("2026-04")
        run = asyncio.create_task(bills.closing.run())
        while not await bills.books.rows("SELECT 1 FROM invoices LIMIT 1"):
            assert not run.done()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    async with open_bills(path, clock) as bills:
        await bills.closing.run()
        found = await bills.all()
    assert [invoice.sequence for invoice in found] == list(range(1, 201))
    assert len({invoice.payer.id for invoice in found}) == 200


async def test_books_that_differ_are_refused_until_they_agree(
    bills: Bills, caplog: pytest.LogCaptureFixture
) -> None:
    await bills.call(ANN, 1_000)
    await bills.call(BEN, 2_000)
    change = "UPDATE usage_days SET cost_nano_usd = cost_nano_usd + ? WHERE cost_nano_usd > 1999"
    write = bills.books.database.write
    await write(statement(change, 1))
    bills.at("2026-04")
    with caplog.at_level(logging.ERROR):
        closed = await bills.closing.run()
    assert closed == Closed(invoices=("TP-1",), refused=(f"{BEN} 2026-03",))
    assert "usage: 2001 nano-USD in the tables, 2000 in the journal" in caplog.text
    events = await bills.books.rows("SELECT kind, scope, subject_id, period FROM events")
    assert ("invoice_mismatch", "payer", BEN, "2026-03") in events
    # A later month is not kept waiting, and the refused one is tried again after a restart too.
    bills.at("2026-04", 10 * GRACE_MS)
    await bills.call(ANN, 1_000)
    bills.at("2026-05")
    again = MonthClosing(bills.books.database, bills.books.clock, bills.composer)
    assert (await again.run()).invoices == ("TP-2",)
    await write(statement(change, -1))
    fresh = MonthClosing(bills.books.database, bills.books.clock, bills.composer)
    assert (await fresh.run()).invoices == ("TP-3",)
    assert (await bills.all())[2].payer.id == BEN
    assert await fresh.run() == Closed()


@pytest.mark.parametrize("kind", ["overage", "fee"])
async def test_a_due_that_is_not_the_journals_is_refused(bills: Bills, kind: str) -> None:
    await bills.call(ANN, 3_000_000_000)
    change = "UPDATE dues SET amount_nano_usd = amount_nano_usd - 1 WHERE kind = ?"
    await bills.books.database.write(statement(change, kind))
    bills.at("2026-04")
    assert (await bills.closing.run()).refused == (f"{ANN} 2026-03",)


async def test_a_closed_invoice_never_changes(bills: Bills) -> None:
    await bills.call(ANN, 1_000)
    bills.at("2026-04")
    await bills.closing.run()
    database: SqliteDatabase = bills.books.database
    for sql in (
        "UPDATE invoices SET document = x'7b7d'",
        "DELETE FROM invoices",
        "INSERT OR REPLACE INTO invoices SELECT * FROM invoices",
    ):
        with pytest.raises(Exception, match=r"never changes|UNIQUE"):
            await database.write(statement(sql))
    before = await bills.invoices.numbered("TP-1")
    await bills.call(ANN, 5_000)
    await bills.closing.run()
    assert await bills.invoices.numbered("TP-1") == before


async def test_unused_credit_that_expires_makes_no_invoice(bills: Bills) -> None:
    """The expiry of March's credit is booked in April, and April has nothing else."""
    await bills.call(ANN, 1_000)
    bills.at("2026-04")
    await bills.closing.run()
    await bills.books.ledger.catch_up([ANN])
    kinds = await bills.books.rows("SELECT kind FROM entries WHERE period = '2026-03'")
    assert ("expiry",) in kinds
    assert await bills.closing.run() == Closed()
    assert len(await bills.all()) == 1


async def test_numbers_of_usage_may_be_as_large_as_a_provider_likes(bills: Bills) -> None:
    most = 2**63 - 1
    await bills.call(ANN, 1_000, input_tokens=most, user_id=ANN)
    await bills.call(ANN, 1_000, input_tokens=most, key_id="key_2", outcome="truncated")
    bills.at("2026-04")
    assert (await bills.closing.run()).invoices == ("TP-1",)
    assert (await bills.all())[0].usage[0].input_tokens == 2 * most
