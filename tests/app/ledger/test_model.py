"""B4: random sequences of verbs against an independent reference: I1, I3 to I7, I14, I15.

Two ways to the same law. Hypothesis looks for a short sequence that breaks it and prints it as a
program. A seeded walk covers many more steps: ``TURNPIKE_MODEL_WALKS`` sets how many walks of 50
steps, a failing one names its seed, and ``TURNPIKE_MODEL_SEED`` replays that one alone.
"""

import os
import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.app.ledger.world import HOUR_MS, PAYERS, SCOPES, TIERS, USERS, Step, World, any_step

EXAMPLES = int(os.environ.get("TURNPIKE_MODEL_EXAMPLES", "60"))
WALKS = int(os.environ.get("TURNPIKE_MODEL_WALKS", "2000"))
SEED = os.environ.get("TURNPIKE_MODEL_SEED")
STEPS = 50
PARTS = 4

numbers, amounts = st.integers(0, 12), st.integers(0, 130)


class LedgerMachine(RuleBasedStateMachine):
    """The store beside the reference."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def teardown(self) -> None:
        self.world.close()

    @rule(
        number=numbers,
        user=st.sampled_from(USERS),
        own=st.booleans(),
        key=st.sampled_from(["key_1", "key_2"]),
        group=st.sampled_from(["", "group_x"]),
        most=amounts,
        floor=amounts,
        hours=st.integers(1, 9),
    )
    def place(
        self,
        number: int,
        user: str,
        own: bool,
        key: str,
        group: str,
        most: int,
        floor: int,
        hours: int,
    ) -> None:
        payer, group = (user, "") if own else ("org_lab", group)
        self.take("place", number, user, payer, key, group, most, floor, hours * HOUR_MS)

    @rule(number=numbers, cost=st.one_of(amounts, st.integers(0, 1000)))
    def settle(self, number: int, cost: int) -> None:
        self.take("settle", number, cost)

    @rule(number=numbers)
    def void(self, number: int) -> None:
        self.take("void", number)

    @rule(number=numbers)
    def wait(self, number: int) -> None:
        self.take("wait", number, HOUR_MS // 2)

    @rule(number=numbers, cost=amounts)
    def resolve(self, number: int, cost: int) -> None:
        self.take("resolve", number, cost)

    @rule(
        payer=st.sampled_from(PAYERS),
        kind=st.sampled_from(["purchased", "promotional"]),
        number=st.integers(0, 3),
        amount=st.integers(1, 200),
        days=st.integers(0, 40),
    )
    def give(self, payer: str, kind: str, number: int, amount: int, days: int) -> None:
        self.take("give", payer, kind, number, amount, days)

    @rule(
        number=st.integers(0, 5),
        payer=st.sampled_from(PAYERS),
        amount=st.integers(-200, 200).filter(bool),
    )
    def adjust(self, number: int, payer: str, amount: int) -> None:
        self.take("adjust", number, payer, amount)

    @rule(payer=st.sampled_from(PAYERS), tier=st.sampled_from(sorted(TIERS)))
    def tier(self, payer: str, tier: str) -> None:
        self.take("tier", payer, tier)

    @rule(scope=st.sampled_from(SCOPES), amount=st.integers(0, 400))
    def limit(self, scope: tuple[str, str], amount: int) -> None:
        self.take("limit", scope, amount)

    @rule(payer=st.sampled_from(PAYERS))
    def catch_up(self, payer: str) -> None:
        self.take("catch_up", payer)

    @rule(ms=st.sampled_from([1, HOUR_MS, 30 * HOUR_MS, 300 * HOUR_MS]))
    def pass_time(self, ms: int) -> None:
        self.take("pass_time", ms)

    @rule()
    def give_up(self) -> None:
        self.take("give_up")

    @rule(recover=st.booleans())
    def restart(self, recover: bool) -> None:
        self.take("restart", recover)

    @invariant()
    def agree(self) -> None:
        self.world.compare()

    def take(self, *step: object) -> None:
        self.world.take(step)


TestLedgerAgainstReference = LedgerMachine.TestCase
TestLedgerAgainstReference.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("part", range(PARTS))
def test_walks(part: int) -> None:
    """Each walk is one seed; groups of verbs are committed together, as in the store."""
    seeds = [int(SEED)] if SEED else range(part, WALKS, PARTS)
    for seed in seeds:
        walked: list[Step] = []
        world, chance = World(seed), random.Random(seed)
        try:
            for _ in range(STEPS):
                step = any_step(chance)
                walked.append(step)
                world.take(step)
                if chance.random() < 0.1:
                    world.compare()
            world.close()
        except Exception as error:
            steps = "\n".join(f"    {step}" for step in walked)
            raise AssertionError(
                f"seed {seed} (TURNPIKE_MODEL_SEED={seed} replays it):\n{steps}"
            ) from error
