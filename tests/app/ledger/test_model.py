"""B4: random sequences of verbs, alone and in groups, against an independent reference.

``TURNPIKE_MODEL_EXAMPLES`` sets how many sequences of up to 50 steps; a failing one is printed as
a program that replays it.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.errors import Conflict, NotFound
from app.ledger.entries import CreditTerms, HoldRequest, Settlement
from app.ledger.store import InsufficientCredit
from tests.app.ledger.books import Books, hold, opened, used
from tests.app.ledger.reference import Ended, Reference

EXAMPLES = int(os.environ.get("TURNPIKE_MODEL_EXAMPLES", "40"))
PAYERS = ("user_ann", "user_ben")
PERIODS = ("2026-11", "2026-12")
TIERS = {
    "none": CreditTerms(tier="none", monthly_credit_nano_usd=0, overage=False),
    "free": CreditTerms(tier="free", monthly_credit_nano_usd=100, overage=False),
    "plus": CreditTerms(tier="plus", monthly_credit_nano_usd=250, overage=False),
    "pro": CreditTerms(tier="pro", monthly_credit_nano_usd=200, overage=True),
}
AMOUNTS = st.integers(0, 130)

requests = st.builds(
    lambda number, payer, period, tier, amount, floor, expires: hold(
        amount,
        floor=min(floor, amount),
        payer=payer,
        period=period,
        terms=TIERS[tier],
        call_id=f"call_{number:03d}",
        expires_at_ms=expires,
    ),
    st.integers(0, 60),
    st.sampled_from(PAYERS),
    st.sampled_from(PERIODS),
    st.sampled_from(sorted(TIERS)),
    AMOUNTS,
    AMOUNTS,
    st.integers(0, 10),
)
costs = st.one_of(AMOUNTS, st.integers(0, 1000))
verbs = st.one_of(
    st.tuples(st.just("place"), requests),
    st.tuples(st.just("settle"), st.integers(0, 60), costs),
    st.tuples(st.just("void"), st.integers(0, 60)),
)


class LedgerMachine(RuleBasedStateMachine):
    """The store beside the reference."""

    empty: bytes = b""  # a database without rows, made once: migrating costs fsyncs

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger"))
        self.path = self.folder / "ledger.db"
        self.runner = asyncio.Runner()
        self.reference = Reference()
        if LedgerMachine.empty:
            self.path.write_bytes(LedgerMachine.empty)
        else:
            self.runner.run(_create(self.path))
            LedgerMachine.empty = self.path.read_bytes()
        self.books = self._open()

    def _open(self) -> Books:
        self.stack = AsyncExitStack()
        return self.runner.run(self.stack.enter_async_context(opened(self.path)))

    def teardown(self) -> None:
        try:
            assert self.runner.run(self.books.audit()).problems == []
        finally:
            self.runner.run(self.stack.aclose())
            self.runner.close()
            shutil.rmtree(self.folder)

    @rule(request=requests)
    def place(self, request: HoldRequest) -> None:
        self.group([("place", request)])

    @precondition(lambda self: self.reference.calls)
    @rule(data=st.data(), cost=costs)
    def settle(self, data: st.DataObject, cost: int) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.reference.calls)))
        self.group([("settle", int(call_id[5:]), cost)])

    @precondition(lambda self: self.reference.calls)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.reference.calls)))
        self.group([("void", int(call_id[5:]))])

    @rule(some=st.lists(verbs, min_size=2, max_size=12))
    def group(self, some: list[tuple[Any, ...]]) -> None:
        """Verbs that are committed together happen one after the other all the same."""

        async def together() -> list[Any]:
            running = [asyncio.ensure_future(self._start(verb)) for verb in some]
            return await asyncio.gather(*running, return_exceptions=True)

        answers = self.runner.run(together())
        for verb, answer in zip(some, answers, strict=True):
            assert _plain(answer) == self._expect(verb), verb

    @rule(now_ms=st.integers(0, 10))
    def give_up_expired(self, now_ms: int) -> None:
        found = self.runner.run(self.books.ledger.give_up_expired(now_ms))
        assert {each.call_id for each in found} == self.reference.give_up(now_ms)

    @rule(recover=st.booleans())
    def restart(self, recover: bool) -> None:
        self.runner.run(self.stack.aclose())
        self.books = self._open()
        if recover:
            found = self.runner.run(self.books.ledger.recover())
            assert {each.call_id for each in found} == self.reference.give_up(None)

    @invariant()
    def balances_agree(self) -> None:
        rows = self.runner.run(
            self.books.rows(
                "SELECT payer_id, period, granted_nano_usd, posted_nano_usd, held_nano_usd"
                " FROM balances"
            )
        )
        reference = self.reference
        seen = {(call.request.payer_id, call.request.period) for call in reference.calls.values()}
        assert sorted(rows) == sorted(
            (*key, reference.granted(*key), reference.posted(*key), reference.held(*key))
            for key in seen
        )
        still_open = sum(call.ended is None for call in reference.calls.values())
        assert self.books.ledger.open_holds() == still_open

    @invariant()
    def the_house_agrees(self) -> None:
        ended = [call.ended for call in self.reference.calls.values() if call.ended]
        rows = self.runner.run(
            self.books.rows(
                "SELECT a.kind, sum(amount_nano_usd) FROM entries e JOIN accounts a"
                " ON a.id = debit_account_id WHERE a.kind IN ('overrun', 'forgiven') GROUP BY 1"
            )
        )
        expected = {
            "overrun": sum(each.overrun for each in ended),
            "forgiven": sum(self.reference.forgiven.values()),
        }
        assert dict(rows) == {kind: amount for kind, amount in expected.items() if amount}

    def _start(self, verb: tuple[Any, ...]) -> Awaitable[Any]:
        ledger = self.books.ledger
        if verb[0] == "place":
            return ledger.place_hold(verb[1])
        call_id = f"call_{verb[1]:03d}"
        if verb[0] == "settle":
            return ledger.settle_hold(call_id, verb[2], used(call_id))
        return ledger.void_hold(call_id, used(call_id))

    def _expect(self, verb: tuple[Any, ...]) -> object:
        if verb[0] == "place":
            return self.reference.place(verb[1])
        call_id = f"call_{verb[1]:03d}"
        if verb[0] == "settle":
            return self.reference.settle(call_id, verb[2])
        return self.reference.void(call_id)


async def _create(path: Path) -> None:
    async with opened(path):
        pass


def _plain(answer: object) -> object:
    """An answer or a refusal in the reference's words."""
    if isinstance(answer, Settlement):
        return Ended(str(answer.state), answer.cost_nano_usd, answer.overrun_nano_usd)
    for kind, name in (
        (InsufficientCredit, "insufficient"),
        (Conflict, "conflict"),
        (NotFound, "unknown"),
    ):
        if isinstance(answer, kind):
            return name
    return getattr(answer, "amount_nano_usd", answer)


TestLedgerAgainstReference = LedgerMachine.TestCase
TestLedgerAgainstReference.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
