"""The number of threads follows the machine's load. Steps are made up: what each takes, by number.

What steps take is as measured with SmolLM2-135M on two cores, quiet and beside one busy process.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from local_runtime.engines.step_costs import Kind
from local_runtime.engines.threads import ThreadTuner, candidates

MS, S = 1_000_000, 1_000_000_000
GRACE_NS = 100 * MS
SHARE = 0.02

Costs = dict[int, int]  # nanoseconds of a step, by number of threads

QUIET: Costs = {1: 19 * MS, 2: 12 * MS}
BUSY: Costs = {1: 18 * MS, 2: 23 * MS}
QUIET_16: Costs = {1: 125 * MS, 2: 70 * MS}
BUSY_16: Costs = {1: 130 * MS, 2: 250 * MS}
QUIET_PROMPT: Costs = {1: 980 * MS, 2: 490 * MS}
CROWDED: Costs = {1: 35 * MS, 2: 6000 * MS}


@dataclass
class Machine:
    """Runs steps, and counts what those with a number other than the settled one cost on top."""

    tuner: ThreadTuner
    now_ns: int = 0
    steps: int = 0
    extra_ns: int = 0
    looks: int = 0
    dearest_ns: int = 0
    used: list[int] = field(default_factory=list)
    noise: Callable[[], float] = lambda: 1.0

    def step(self, kind: Kind, costs: Costs) -> None:
        threads = self.tuner.choose(kind, self.now_ns)
        settled = self.tuner.settled
        wall_ns = int(costs[threads] * self.noise())
        self.steps += 1
        self.used.append(threads)
        if threads != settled:
            self.looks += 1
            self.extra_ns += max(0, costs[threads] - costs[settled])
            self.dearest_ns = max(self.dearest_ns, costs[threads] - costs[settled])
        self.now_ns += wall_ns
        self.tuner.observe(kind, wall_ns, wall_ns, self.now_ns)

    def run(self, costs: Costs, for_ns: int, kind: Kind = 1) -> None:
        until_ns = self.now_ns + for_ns
        while self.now_ns < until_ns:
            self.step(kind, costs)

    def until(self, settled: int, costs: Costs, kind: Kind = 1) -> int:
        """Nanoseconds until this number is settled on; a minute at most."""
        begun_ns = self.now_ns
        while self.tuner.settled != settled and self.now_ns < begun_ns + 60 * S:
            self.step(kind, costs)
        return self.now_ns - begun_ns


def test_candidates() -> None:
    assert candidates(1) == [1]
    assert candidates(2) == [1, 2]
    assert candidates(8) == [4, 7, 8]


def test_a_fixed_number_stays() -> None:
    machine = Machine(ThreadTuner([3]))
    machine.run({3: 10 * MS}, S)
    assert set(machine.used) == {3}


def noisy(seed: int) -> Callable[[], float]:
    """As on a machine where little things happen all the time."""
    chance = random.Random(seed)
    return lambda: chance.lognormvariate(0, 0.1)


kinds = st.sampled_from(["prompt", 1, 2, 3])
steps_ns = st.integers(MS, 600 * MS)


@given(
    counts=st.sampled_from([[1, 2], [2, 3], [4, 7, 8], [1, 3, 4]]),
    pattern=st.lists(kinds, min_size=1, max_size=40),
    alone_ns=st.dictionaries(kinds, steps_ns),
    slower=st.lists(st.floats(0.5, 4), min_size=3, max_size=3),
    seconds=st.integers(1, 60),
)
@example([1, 2], ["prompt"] * 3 + [1] * 37, {"prompt": 490 * MS, 1: 12 * MS}, [2, 1, 1], 60)
@settings(max_examples=60)
def test_what_looks_cost_stays_within_the_budget(
    counts: list[int],
    pattern: list[Kind],
    alone_ns: dict[Kind, int],
    slower: list[float],
    seconds: int,
) -> None:
    """Whatever the kinds of steps, their order and their length. That a look is dearer than was to
    be expected shows only when it is over, so one step may go beyond."""
    machine = Machine(ThreadTuner(counts))
    for kind in itertools.cycle(pattern):
        base_ns = alone_ns.get(kind, 20 * MS)
        machine.step(kind, {c: int(base_ns * s) for c, s in zip(counts, slower, strict=False)})
        assert machine.extra_ns <= GRACE_NS + SHARE * machine.now_ns + machine.dearest_ns
        if machine.now_ns > seconds * S:
            break
    assert set(machine.used) <= set(counts)


@given(
    counts=st.sampled_from([[1, 2], [4, 7, 8], [1, 3, 4]]),
    best=st.integers(0, 2),
    step_ns=st.integers(5 * MS, 150 * MS),
    worse=st.lists(st.floats(1.3, 3), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=30)
def test_what_is_best_is_found_and_stays(
    counts: list[int], best: int, step_ns: int, worse: list[float], seed: int
) -> None:
    best %= len(counts)
    costs = {c: int(step_ns * (1 if at == best else worse[at])) for at, c in enumerate(counts)}
    machine = Machine(ThreadTuner(counts), noise=noisy(seed))
    assert machine.until(counts[best], costs) < 60 * S
    machine.run(costs, 20 * S)
    machine.used.clear()
    machine.run(costs, 20 * S)
    assert machine.tuner.settled == counts[best]
    assert machine.used.count(counts[best]) > 0.9 * len(machine.used)


@given(st.sampled_from([(QUIET, BUSY, 8, 8), (QUIET_16, BUSY_16, 8, 15)]), st.integers(0, 10**6))
@settings(max_examples=40)
def test_a_neighbour_comes_and_leaves(case: tuple[Costs, Costs, int, int], seed: int) -> None:
    quiet, busy, come_s, gone_s = case
    machine = Machine(ThreadTuner([1, 2]), noise=noisy(seed))
    machine.run(quiet, 20 * S)
    assert machine.until(1, busy) < come_s * S
    machine.run(busy, 20 * S)
    machine.until(1, busy)
    assert machine.until(2, quiet) < gone_s * S


@pytest.mark.parametrize(
    ("quiet", "busy", "s_max"), [(QUIET, BUSY, 0.2), (QUIET_16, BUSY_16, 0.95)]
)
def test_a_neighbour_is_noticed_at_once(quiet: Costs, busy: Costs, s_max: float) -> None:
    machine = Machine(ThreadTuner([1, 2]))
    machine.run(quiet, 20 * S)
    assert machine.until(1, busy) < s_max * S


@pytest.mark.parametrize(("busy", "s_max"), [(BUSY, 0.2), (BUSY_16, 2), (CROWDED, 6.2)])
def test_a_neighbour_from_the_start_is_noticed(busy: Costs, s_max: float) -> None:
    assert Machine(ThreadTuner([1, 2])).until(1, busy) < s_max * S


def test_one_step_is_enough_where_it_takes_forever() -> None:
    machine = Machine(ThreadTuner([1, 2]))
    machine.run(QUIET, 20 * S)
    assert machine.until(1, CROWDED) < 1.1 * CROWDED[2]
    machine.run(CROWDED, 60 * S)
    assert machine.used[-1000:].count(2) <= 1
    assert machine.until(2, QUIET) < S / 5  # since they are quicker now


def test_a_quiet_machine_keeps_all_cores() -> None:
    machine = Machine(ThreadTuner([1, 2]), noise=noisy(1))
    machine.run(QUIET, 100 * S)
    assert machine.tuner.settled == 2
    assert 0 < machine.used.count(1) < 0.005 * machine.steps
    assert machine.extra_ns < 0.002 * machine.now_ns


def test_a_prompt_is_not_held_up_where_answers_tell_as_much() -> None:
    machine = Machine(ThreadTuner([1, 2]))
    for _ in range(100):
        for _ in range(7):
            machine.step("prompt", QUIET_PROMPT)
        for _ in range(50):
            machine.step(1, QUIET)
    assert machine.looks
    assert machine.dearest_ns == QUIET[1] - QUIET[2]


def test_where_only_prompts_are_read_a_look_waits_until_it_is_paid_for() -> None:
    machine = Machine(ThreadTuner([1, 2]))
    machine.run(QUIET_PROMPT, 30 * S, "prompt")
    assert 1 not in machine.used
    machine.run(QUIET_PROMPT, 70 * S, "prompt")
    assert 0 < machine.looks <= 2


def test_a_look_that_is_plainly_no_better_is_one_step() -> None:
    machine = Machine(ThreadTuner([1, 2]))
    machine.run(QUIET, S)
    assert "".join(map(str, machine.used)).strip("2") == "1"


def test_looks_wait_while_kinds_take_turns_and_nothing_is_forgotten() -> None:
    machine = Machine(ThreadTuner([1, 2]))
    for number in range(200):
        machine.step(number % 4, BUSY)
    assert machine.tuner.settled == 1


def test_steps_of_different_kinds_are_not_compared() -> None:
    machine = Machine(ThreadTuner([1, 2]))
    for number in range(400):
        machine.step(number % 2, {1: 21 * MS, 2: 20 * MS} if number % 2 else QUIET_16)
        assert machine.tuner.settled == 2


def test_of_a_step_that_compares_with_none_nothing_is_learned() -> None:
    machine = Machine(ThreadTuner([1, 2]))
    machine.run(QUIET, 100 * MS)
    assert [machine.tuner.choose(None, machine.now_ns) for _ in range(100)] == [2] * 100


def test_an_hour_without_work_tells_nothing() -> None:
    """Neither are the costs before it those of now, nor does it pay for looks."""
    machine = Machine(ThreadTuner([1, 2]))
    machine.run(QUIET_PROMPT, 30 * S, "prompt")
    for _ in range(20):
        machine.now_ns += 3600 * S
        machine.step("prompt", QUIET_PROMPT)
    assert not machine.looks
