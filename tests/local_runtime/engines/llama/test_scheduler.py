"""Who computes what in a step. No clock, no model: state in, plan out."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.cost import Forecast
from local_runtime.engines.llama.cells import Cells, length_of
from local_runtime.engines.llama.scheduler import (
    Limits,
    Plan,
    Row,
    in_turn,
    kind_of_step,
    next_to_enter,
    plan,
    to_evict,
)
from local_runtime.engines.llama.slots import Sequence, Slots, Work, cells_needed

LIMITS = Limits(cells=1000, batch_tokens=64)
FAST = Forecast(prompt_token_ns=1_000, output_token_ns=1_000)
CELLS = Cells()


def work(
    number: int,
    prompt: int = 10,
    *,
    answers: int = 1,
    written: int = 0,
    computed: int = 0,
    compute_ns_max: int | None = None,
    key: str | None = None,
) -> Work:
    sequences = [
        Sequence(index, [1] * (prompt + written), prompt + 500) for index in range(answers)
    ]
    shared = CELLS.extend(None, min(prompt, computed))
    for sequence in sequences:
        own = CELLS.fork(shared, min(prompt, computed))
        sequence.path = CELLS.extend(own, max(0, computed - prompt))
        sequence.computed = computed
    return Work(
        f"r{number}",
        number,
        np.ones(prompt, dtype=np.int32),
        sequences,
        compute_ns_max,
        fairness_key=f"key{number}" if key is None else key,
    )


def generating(
    number: int,
    prompt: int = 10,
    written: int = 1,
    *,
    answers: int = 1,
    compute_ns_max: int | None = None,
) -> Work:
    return work(
        number,
        prompt,
        written=written,
        computed=prompt + written - 1,
        answers=answers,
        compute_ns_max=compute_ns_max,
    )


def rows(step: Plan) -> list[tuple[int, int, int, bool]]:
    return [(r.work.number, r.sequence.index, r.tokens, r.samples) for r in step.rows]


def enters(
    waiting: list[Work], running: list[Work], free: int, *, found: int = 0, cells: int = 1000
) -> Work | None:
    limits = Limits(cells=cells, batch_tokens=64)
    return next_to_enter(waiting, running, free, limits, lambda _: found)


def test_nothing_to_do() -> None:
    step = plan([], LIMITS, FAST)
    assert not (step.rows or step.exhausted)
    assert enters([], [], 8) is None


def test_everybody_who_generates_gets_one_token() -> None:
    step = plan([generating(0), generating(1), generating(2)], LIMITS, FAST)
    assert rows(step) == [(0, 0, 1, True), (1, 0, 1, True), (2, 0, 1, True)]
    assert all(row.generates for row in step.rows)


def test_drafted_tokens_are_computed_with_the_next_one() -> None:
    bold = generating(1)
    bold.sequences[0].drafted = [7, 8, 9]
    assert rows(plan([generating(0), bold], LIMITS, FAST)) == [(0, 0, 1, True), (1, 0, 4, True)]


def test_a_prompt_is_read_whole_where_there_is_room() -> None:
    step = plan([generating(0), work(1, prompt=10)], LIMITS, FAST)
    assert rows(step) == [(0, 0, 1, True), (1, 0, 10, True)]
    assert not step.rows[1].generates


def test_a_long_prompt_is_read_in_chunks_beside_the_others_tokens() -> None:
    reading = work(1, prompt=500, computed=100)
    step = plan([generating(0), reading], LIMITS, FAST)
    # 400 tokens are left, and a batch has room for 63.
    assert rows(step) == [(0, 0, 1, True), (1, 0, 63, False)]


@given(st.integers(1, 3_000), st.integers(16, 400))
def test_portions_of_a_prompt_are_alike_and_none_is_small(prompt: int, token_us: int) -> None:
    forecast = Forecast(prompt_token_ns=token_us * 10_000, output_token_ns=10_000_000)
    limits = Limits(cells=10**6, batch_tokens=512)
    room = max(72, 15_000 // token_us)
    read: list[int] = []
    while sum(read) < prompt:
        reading = work(1, prompt=prompt, computed=sum(read))
        read.append(plan([generating(0), reading], limits, forecast).rows[1].tokens)
    assert sum(read) == prompt
    assert max(read) <= min(511, max(room, 127))
    assert min(read) >= min(prompt, 64)
    assert max(read) - min(read) <= len(read)


def beside(token_ms: int, *, generate: int = 1, read: int = 1) -> int:
    """Tokens of prompts in a step, on a machine on which one takes so long."""
    forecast = Forecast(prompt_token_ns=token_ms * 1_000_000, output_token_ns=10_000_000)
    works = [generating(number) for number in range(generate)]
    works += [work(20 + number, prompt=64_000) for number in range(read)]
    step = plan(works, Limits(cells=10**6, batch_tokens=4096), forecast)
    return sum(row.tokens for row in step.rows if not row.generates)


def test_chunks_are_short_on_a_slow_machine() -> None:
    assert beside(20) == 16
    assert beside(10) == 30
    assert beside(1) == 150
    assert beside(20, generate=0) == 50
    assert beside(1, generate=0) == 500


def test_a_chunk_is_as_long_as_attention_wants_it_where_that_is_not_too_long() -> None:
    assert beside(3) == 72
    assert beside(4) == 72
    assert beside(6) == 72
    assert beside(7) == 42


def test_the_more_wait_for_their_first_token_the_longer_the_chunks() -> None:
    assert beside(1, generate=2, read=2) == 150
    assert beside(1, generate=2, read=4) == 300
    assert beside(1, generate=2, read=12) == 500
    assert beside(1, generate=12, read=2) == 150


def test_no_slot_no_entry_and_nobody_overtakes() -> None:
    waiting = [work(1, answers=2), work(2)]
    assert enters(waiting, [generating(0)], 1) is None
    assert enters(waiting, [generating(0)], 2) is waiting[0]


def test_no_cells_no_entry() -> None:
    big = work(1, prompt=600)
    assert enters([big], [generating(0, prompt=500)], 7) is None
    assert enters([work(1, prompt=999)], [], 8) is not None


def test_what_is_shared_needs_no_cells() -> None:
    big = work(1, prompt=600)
    assert enters([big], [generating(0, prompt=500)], 7, found=450) is big


def test_a_prompt_that_is_being_read_keeps_its_cells() -> None:
    reading = work(0, prompt=700, computed=50)
    assert enters([work(1, prompt=400)], [reading], 7) is None


def test_everybodys_first_request_comes_before_anybodys_second() -> None:
    greedy = [work(number, key="greedy") for number in range(5)]
    modest = [work(5, key="one"), work(6, key="two"), work(7, key="one")]
    order = [each.number for each in in_turn([*greedy, *modest])]
    assert order == [0, 5, 6, 1, 7, 2, 3, 4]
    running = [generating(9), generating(10)]
    for each in running:
        each.fairness_key = "greedy"
    assert [each.number for each in in_turn(greedy + modest, running)][:3] == [5, 6, 7]


def test_prompts_are_read_in_turn_as_well() -> None:
    long = [work(0, 500, computed=10, key="greedy"), work(1, 500, computed=10, key="greedy")]
    short = work(2, 20, key="modest")
    first = plan([*long, short], LIMITS, FAST)
    assert rows(first)[0][0] == 0
    long[0].sequences[0].computed = 480
    assert [row[0] for row in rows(plan([*long, short], LIMITS, FAST))] == [0, 2, 1]


def test_who_follows_waits_for_its_leader() -> None:
    leader, follower = work(0, 200, computed=30), work(1, 210)
    follower.sequences[0].follows = leader.sequences[0]
    follower.sequences[0].follow_tokens = 200
    assert [row[0] for row in rows(plan([leader, follower], LIMITS, FAST))] == [0]
    assert cells_needed([leader, follower]) == 210


def test_steps_compare_with_others_of_their_kind() -> None:
    reading, answers = work(0, 200, computed=30), generating(1, answers=3)
    other = generating(2)
    other.adapter = "other"
    assert kind_of_step([reading], "") == "prompt"
    assert kind_of_step([answers, other], "") == 3
    assert kind_of_step([answers, other], "other") == 1
    assert kind_of_step([reading, answers], "") is None
    answers.sequences[0].drafted = [1]
    assert kind_of_step([answers], "") is None
    follower = work(3, 200)
    follower.sequences[0].follows = reading.sequences[0]
    assert kind_of_step([generating(4), follower], "") == 1


def test_answers_of_one_request_share_the_cells_of_its_prompt() -> None:
    assert cells_needed([generating(0, prompt=100, written=5, answers=4)]) == 120


def test_the_youngest_leaves_when_cells_run_out() -> None:
    running = [generating(0, 400, 10), generating(1, 400, 10), generating(2, 190, 10)]
    assert to_evict(running, LIMITS) == [running[2]]


def test_the_oldest_is_never_evicted() -> None:
    running = [generating(0, 990, 20)]
    assert to_evict(running, LIMITS) == []
    assert rows(plan(running, LIMITS, FAST)) == [(0, 0, 1, True)]


def test_the_first_answer_reads_the_prompt_for_all() -> None:
    step = plan([work(0, prompt=20, answers=3)], LIMITS, FAST)
    assert rows(step) == [(0, 0, 20, True)]


def test_answers_that_come_back_continue_behind_the_shared_prompt() -> None:
    back = work(0, prompt=20, answers=2, written=5)
    assert rows(plan([back], LIMITS, FAST)) == [(0, 0, 25, True)]
    back.sequences[0].computed = 25
    back.sequences[0].tokens.append(1)
    back.sequences[1].computed = 20
    assert rows(plan([back], LIMITS, FAST)) == [(0, 0, 1, True), (0, 1, 5, True)]


def test_whose_money_is_gone_stops() -> None:
    rich, poor = generating(0, compute_ns_max=10_000), generating(1, compute_ns_max=1_000)
    step = plan([rich, poor], LIMITS, FAST)
    assert step.exhausted == [poor]
    assert rows(step) == [(0, 0, 1, True)]


def test_a_chunk_is_no_longer_than_the_money_lasts() -> None:
    poor = work(0, prompt=50, compute_ns_max=15_500)
    assert rows(plan([poor], LIMITS, FAST)) == [(0, 0, 10, False)]
    broke = work(0, prompt=50, compute_ns_max=100)
    step = plan([broke], LIMITS, FAST)
    assert (step.exhausted, step.rows) == ([broke], [])


def test_slots() -> None:
    slots = Slots(2)
    one, two = Sequence(0, [1], 9), Sequence(1, [1], 9)
    assert {slots.take(one), slots.take(two)} == {0, 1}
    assert (slots.free, slots.running) == (0, 2)
    slots.release(one)
    assert one.slot is None
    assert (slots.free, slots.running) == (1, 1)


class Day:
    """A whole day of made-up work, carried out as the engine would, with all limits checked."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.cells = Cells()
        self.limits = Limits(cells=300, batch_tokens=64)
        self.slots = Slots(4)
        self.running: list[Work] = []
        self.waiting = [
            work(n, chance.randint(1, 120), answers=chance.randint(1, 3), key=str(n % 3))
            for n in range(20)
        ]
        for item in self.waiting:
            room = (self.limits.cells - item.prompt_tokens) // len(item.sequences)
            for sequence in item.sequences:
                sequence.tokens_max = item.prompt_tokens + min(room, chance.randint(1, 150))

    def step(self) -> None:
        for item in to_evict(self.running, self.limits):
            self.move(item, self.running, self.waiting)
            for sequence in item.live:
                self.leave(sequence)
        while entering := next_to_enter(
            self.waiting, self.running, self.slots.free, self.limits, lambda _: 0
        ):
            self.move(entering, self.waiting, self.running)
            for sequence in entering.live:
                self.slots.take(sequence)
        step = plan(self.running, self.limits, FAST)
        assert 0 < step.tokens <= self.limits.batch_tokens
        for row in step.rows:
            row.sequence.computed += row.tokens
            row.sequence.path = self.cells.extend(row.sequence.path, row.tokens)
        assert self.cells.used <= self.limits.cells
        for row in step.rows:
            for sequence in self.sampling(row):
                sequence.tokens.append(1)
                sequence.ended = len(sequence.tokens) >= sequence.tokens_max
        for item in self.running:
            for sequence in item.sequences:
                if sequence.ended and sequence.slot is not None:
                    self.leave(sequence)
        self.running = [item for item in self.running if item.live]

    def leave(self, sequence: Sequence) -> None:
        self.slots.release(sequence)
        self.cells.release(sequence.path)
        sequence.path, sequence.computed = None, 0

    @staticmethod
    def move(item: Work, source: list[Work], target: list[Work]) -> None:
        source.remove(item)
        target.append(item)
        target.sort(key=lambda other: other.number)

    def sampling(self, row: Row) -> list[Sequence]:
        ready = [row.sequence] if row.samples else []
        item = row.work
        if row.sequence is item.live[0] and row.sequence.computed >= item.prompt_tokens:
            for other in item.live[1:]:
                if not other.computed:
                    other.computed = item.prompt_tokens
                    other.path = self.cells.fork(row.sequence.path, item.prompt_tokens)
                    ready += [] if other.pending else [other]
        return ready


def test_all_work_ends() -> None:
    for seed in range(30):
        day = Day(seed)
        for _ in range(20_000):
            if not day.waiting and not day.running:
                break
            day.step()
        assert not day.waiting
        assert day.slots.free == day.slots.count
        assert day.cells.used == 0
    assert length_of(None) == 0
