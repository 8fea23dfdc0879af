"""An invoice adds up to the journal to the nano, whatever happened in the month."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.billing.invoice_document import Invoice, decode
from app.billing.invoice_facts import MEASURED
from app.clock import month_ms, period_of
from app.ledger.accounts import GrantKind
from app.ledger.entries import Adjustment, EndpointMinute, NewGrant
from app.ledger.store import InsufficientCredit
from tests.app.billing.bills import FREE, PRO, Bills, open_bills
from tests.app.ledger.books import HandClock, HandStandings

PAYERS = ("user_ann", "user_ben", "org_acme")
TERMS = (
    FREE,
    PRO,
    msgspec.structs.replace(PRO, tier="team", monthly_credit_nano_usd=700, fee_nano_usd=60),
    msgspec.structs.replace(PRO, tier="odd", monthly_credit_nano_usd=0, fee_nano_usd=17),
)
COST = st.one_of(st.integers(0, 2_000), st.integers(0, 3_000_000_000))
PAYER = st.sampled_from(PAYERS)
ACTION = st.one_of(
    st.tuples(
        st.just("call"),
        PAYER,
        COST,
        st.fixed_dictionaries(
            {
                "provider": st.sampled_from(["mock", "other", ""]),
                "model": st.sampled_from(["acme/tiny", "acme/big"]),
                "input_tokens": st.integers(0, 10_000),
                "images": st.integers(0, 10),
                "characters": st.integers(0, 10**6),
                "audio_ms": st.integers(0, 10**8),
                "video_ms": st.integers(0, 10**5),
                "compute_ns": st.integers(0, 10**10),
            }
        ),
    ),
    st.tuples(st.just("open"), PAYER, COST, st.just({})),
    st.tuples(st.just("terms"), PAYER, st.integers(0, len(TERMS) - 1), st.just({})),
    st.tuples(st.just("buy"), PAYER, st.integers(1, 5_000), st.just({})),
    st.tuples(st.just("promise"), PAYER, st.integers(1, 5_000), st.just({})),
    st.tuples(st.just("adjust"), PAYER, st.integers(-9_000, 9_000), st.just({})),
    st.tuples(st.just("minute"), PAYER, st.integers(0, 50), st.just({})),
    st.tuples(st.just("wait"), PAYER, st.integers(1, 20), st.just({})),
)
DAY_MS = 86_400_000


class Story:
    """Plays actions, and keeps its own account of what every call was charged."""

    def __init__(self, bills: Bills) -> None:
        self.bills = bills
        self.charged: Counter[tuple[str, str, str, str]] = Counter()
        self.calls: Counter[tuple[str, str, str, str]] = Counter()
        self.measured: Counter[tuple[tuple[str, str, str, str], str]] = Counter()
        self.open: list[tuple[str, str, int]] = []
        self.serial = 0

    async def play(self, verb: str, payer: str, number: int, fields: dict[str, Any]) -> None:
        books, self.serial = self.bills.books, self.serial + 1
        try:
            if verb == "call":
                call_id = await self.bills.open_call(payer, number)
                await self.settle(call_id, payer, self.period, number, **fields)
            elif verb == "open":
                call_id = await self.bills.open_call(payer, number)
                self.open.append((call_id, self.period, number))
            elif verb == "terms":
                books.standings.terms[payer] = TERMS[number]
                await books.changed()
            elif verb in {"buy", "promise"}:
                kind = GrantKind.PURCHASED if verb == "buy" else GrantKind.PROMOTIONAL
                expires = None if verb == "buy" else books.clock.ms + 20 * DAY_MS
                await books.ledger.give(
                    NewGrant(
                        payer_id=payer,
                        kind=kind,
                        reference=f"r{self.serial}",
                        amount_nano_usd=number,
                        expires_at_ms=expires,
                    )
                )
            elif verb == "adjust" and number:
                await books.ledger.adjust(
                    Adjustment(
                        id=f"a{self.serial}",
                        payer_id=payer,
                        amount_nano_usd=number,
                        reason="a test",
                        author="root",
                    )
                )
            elif verb == "minute":
                minute = EndpointMinute(
                    endpoint_id=f"end_{payer}",
                    replica=self.serial,
                    minute=books.clock.ms // 60_000,
                    amount_nano_usd=number,
                )
                await books.ledger.bill_minutes(payer, [minute])
            elif verb == "wait":
                books.clock.ms += number * DAY_MS
                await books.ledger.catch_up(PAYERS)
        except InsufficientCredit:
            pass

    @property
    def period(self) -> str:
        """The month that it is."""
        return period_of(self.bills.books.clock.ms)

    async def settle(self, call_id: str, payer: str, period: str, cost: int, **fields: Any) -> None:
        found = {"provider": "mock", "model": "acme/tiny", **fields}
        charged = await self.bills.settle(call_id, cost, **found)
        key = (payer, period, found["provider"], found["model"])
        self.charged[key] += charged
        self.calls[key] += 1
        for name in MEASURED:
            default = {"input_tokens": 10, "output_tokens": 20}.get(name, 0)  # as in books.used
            self.measured[key, name] += fields.get(name, default)

    async def end(self) -> None:
        """Settle what is open, and come to the month after."""
        for call_id, period, amount in self.open:
            ((payer,),) = await self.bills.books.rows(
                "SELECT payer_id FROM holds WHERE call_id = ?", call_id
            )
            await self.settle(call_id, payer, period, amount + 3)
        self.bills.books.clock.ms = month_ms(self.period)[1] + 3 * DAY_MS


async def tell(path: Path, actions: list[tuple[str, str, int, dict[str, Any]]]) -> None:
    standings = HandStandings(PRO)
    async with open_bills(path, HandClock(month_ms("2026-03")[0]), standings) as bills:
        story = Story(bills)
        for verb, payer, number, fields in actions:
            await story.play(verb, payer, number, fields)
        await story.end()
        closed = await bills.closing.run()
        assert closed.refused == ()
        assert closed.waiting == ()
        invoices = await bills.all()
        assert len(invoices) == len(closed.invoices)
        for invoice in invoices:
            await agree(bills, story, invoice)
        # What any call was charged is on exactly one invoice.
        total = sum(invoice.totals.usage_nano_usd for invoice in invoices)
        assert total == sum(story.charged.values())
        assert (await bills.books.audit()).problems == []


async def agree(bills: Bills, story: Story, invoice: Invoice) -> None:
    """The invoice against the journal, read anew, and against what the story saw."""
    totals, payer, period = invoice.totals, invoice.payer.id, invoice.period
    lines = {
        (payer, period, line.provider, line.model): line.cost_nano_usd for line in invoice.usage
    }
    mine = {key: cost for key, cost in story.charged.items() if key[:2] == (payer, period)}
    assert lines == mine
    assert [line.calls for line in invoice.usage] == [story.calls[key] for key in lines]
    for key, line in zip(lines, invoice.usage, strict=True):
        for name in MEASURED:
            assert getattr(line, name) == story.measured[key, name]
    assert sum(lines.values()) == await bills.journal(payer, period, "charge", "overage")
    ((due,),) = await bills.books.rows(
        "SELECT coalesce(sum(amount_nano_usd), 0) FROM dues WHERE payer_id = ? AND period = ?",
        *(payer, period),
    )
    assert totals.total_due_nano_usd == due
    assert due == (
        totals.usage_nano_usd
        + totals.endpoints_nano_usd
        + totals.fees_nano_usd
        + totals.adjustments_due_nano_usd
        - totals.credit_used_nano_usd
    )
    assert totals.credit_used_nano_usd == await bills.journal(payer, period, "charge")
    assert totals.fees_nano_usd == await bills.journal(payer, period, "fee")
    for fee in invoice.fees:
        assert fee.quantity * fee.unit_nano_usd == fee.amount_nano_usd
    taken = sum(min(line.amount_nano_usd, 0) for line in invoice.adjustments)
    assert -taken == await bills.journal(payer, period, "adjustment")
    assert all(line.left_nano_usd >= 0 for line in invoice.credit)


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTION, min_size=1, max_size=25))
def test_any_months_add_up(actions: list[tuple[str, str, int, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(tell(Path(folder) / "ledger.db", actions))


async def test_the_worked_example_of_the_readme(tmp_path: Path) -> None:
    async with open_bills(tmp_path / "ledger.db") as bills:
        await bills.named("org_acme", "Acme", tier="team")
        books = bills.books
        books.standings.default = msgspec.structs.replace(
            PRO, tier="team", monthly_credit_nano_usd=6 * 10**9, fee_nano_usd=60 * 10**9
        )
        await books.ledger.give(
            NewGrant(
                payer_id="org_acme",
                kind=GrantKind.PURCHASED,
                reference="payment-7",
                amount_nano_usd=10**9,
            )
        )
        await bills.call("org_acme", 4_000_000_001, provider="cerebras", model="acme/big")
        await bills.call("org_acme", 3_500_000_000, provider="cerebras", model="acme/big")
        await bills.call(
            "org_acme", 1_200_000, provider="local", model="acme/tiny", compute_ns=10**10
        )
        adjustment = Adjustment(
            id="adj-1", payer_id="org_acme", amount_nano_usd=-(10**9), reason="r", author="root"
        )
        await books.ledger.adjust(adjustment)
        minute = EndpointMinute(
            endpoint_id="summaries", replica=0, minute=books.clock.ms // 60_000, amount_nano_usd=5
        )
        await books.ledger.bill_minutes("org_acme", [minute])
        draft = decode(await bills.invoices.preview("org_acme"))
        bills.at("2026-04")
        await bills.call("org_acme", 5)  # of the next month, before this one is closed
        await bills.closing.run()
        (invoice,) = await bills.all()

    assert (draft.final, draft.number, draft.closed_at_ms) == (False, None, None)
    assert (draft.usage, draft.fees, draft.totals) == (invoice.usage, invoice.fees, invoice.totals)
    assert (invoice.number, invoice.payer.name, invoice.payer.seats) == ("TP-1", "Acme", 3)
    assert [(line.provider, line.model, line.calls) for line in invoice.usage] == [
        ("cerebras", "acme/big", 2),
        ("local", "acme/tiny", 1),
    ]
    (fee,) = invoice.fees
    assert (fee.quantity, fee.unit_nano_usd) == (3, 20 * 10**9)
    monthly, bought = invoice.credit
    assert monthly.kind == "monthly"
    assert (monthly.given_nano_usd, monthly.used_nano_usd) == (6 * 10**9, 6 * 10**9)
    assert (bought.given_nano_usd, bought.used_nano_usd, bought.left_nano_usd) == (10**9, 10**9, 0)
    totals = invoice.totals
    assert totals.usage_nano_usd == 7_501_200_001
    assert totals.credit_used_nano_usd == 7 * 10**9
    assert totals.adjustments_due_nano_usd == 10**9
    assert totals.overage_due_nano_usd == 501_200_001 + 10**9
    assert totals.endpoints_due_nano_usd == 5
    assert totals.total_due_nano_usd == 61_501_200_006


@pytest.mark.parametrize("later", [1, 300])
async def test_what_is_left_of_a_purchase_is_that_of_the_months_end(
    tmp_path: Path, later: int
) -> None:
    async with open_bills(tmp_path / "ledger.db", standings=HandStandings(TERMS[3])) as bills:
        purchase = NewGrant(
            payer_id="user_ann", kind=GrantKind.PURCHASED, reference="p", amount_nano_usd=1_000
        )
        await bills.books.ledger.give(purchase)
        await bills.call("user_ann", 250)
        bills.at("2026-04")
        if later:
            await bills.call("user_ann", later)
        await bills.closing.run()
        (line,) = (await bills.all())[0].credit
        assert (line.given_nano_usd, line.used_nano_usd, line.left_nano_usd) == (1_000, 250, 750)
        bills.at("2026-05")
        await bills.closing.run()
        (line,) = (await bills.all())[-1].credit
        assert (line.used_nano_usd, line.left_nano_usd) == (later, 750 - later)
