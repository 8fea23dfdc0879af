"""Who computes what in a step. No clock, no model: state in, plan out."""

import random

from local_runtime.engines.cost import Forecast
from local_runtime.engines.llama.scheduler import Limits, Plan, Row, plan
from local_runtime.engines.llama.slots import Sequence, Slots, Work

LIMITS = Limits(cells=1000, batch_tokens=64)
FAST = Forecast(prompt_token_ns=1_000, output_token_ns=1_000)


def work(
    number: int,
    prompt: int = 10,
    *,
    answers: int = 1,
    written: int = 0,
    computed: int = 0,
    compute_ns_max: int | None = None,
) -> Work:
    sequences = [
        Sequence(index, [1] * (prompt + written), prompt + 500, computed=computed)
        for index in range(answers)
    ]
    return Work(f"r{number}", number, prompt, sequences, compute_ns_max)


def generating(number: int, prompt: int = 10, written: int = 1, **more: int) -> Work:
    return work(number, prompt, written=written, computed=prompt + written - 1, **more)


def rows(step: Plan) -> list[tuple[int, int, int, bool]]:
    return [(r.work.number, r.sequence.index, r.tokens, r.samples) for r in step.rows]


def test_nothing_to_do() -> None:
    step = plan([], [], 8, LIMITS, FAST)
    assert not (step.rows or step.admitted or step.evicted or step.exhausted)


def test_everybody_who_generates_gets_one_token() -> None:
    step = plan([], [generating(0), generating(1), generating(2)], 5, LIMITS, FAST)
    assert rows(step) == [(0, 0, 1, True), (1, 0, 1, True), (2, 0, 1, True)]


def test_a_prompt_enters_and_is_read_in_the_same_step() -> None:
    waiting = [work(1, prompt=10)]
    step = plan(waiting, [generating(0)], 7, LIMITS, FAST)
    assert step.admitted == waiting
    assert rows(step) == [(0, 0, 1, True), (1, 0, 10, True)]


def test_a_long_prompt_is_read_in_chunks_beside_the_others_tokens() -> None:
    reading = work(1, prompt=500, computed=100)
    step = plan([], [generating(0), reading], 6, LIMITS, FAST)
    assert rows(step) == [(0, 0, 1, True), (1, 0, 63, False)]


def test_chunks_are_short_on_a_slow_machine() -> None:
    slow = Forecast(prompt_token_ns=5_000_000, output_token_ns=10_000_000)
    reading = work(1, prompt=500, computed=100)
    assert rows(plan([], [generating(0), reading], 6, LIMITS, slow))[1][2] == 24
    assert rows(plan([], [reading], 7, LIMITS, slow))[0][2] == 64


def test_no_slot_no_entry_and_nobody_overtakes() -> None:
    waiting = [work(1, answers=2), work(2)]
    step = plan(waiting, [generating(0)], 1, LIMITS, FAST)
    assert step.admitted == []


def test_no_cells_no_entry() -> None:
    step = plan([work(1, prompt=600)], [generating(0, prompt=500)], 7, LIMITS, FAST)
    assert step.admitted == []
    assert plan([work(1, prompt=999)], [], 8, LIMITS, FAST).admitted != []


def test_a_prompt_that_is_being_read_keeps_its_cells() -> None:
    reading = work(0, prompt=700, computed=50)
    assert plan([work(1, prompt=400)], [reading], 7, LIMITS, FAST).admitted == []


def test_answers_of_one_request_share_the_cells_of_its_prompt() -> None:
    assert generating(0, prompt=100, written=5, answers=4).cells == 120


def test_the_youngest_leaves_when_cells_run_out() -> None:
    running = [generating(0, 400, 10), generating(1, 400, 10), generating(2, 190, 10)]
    step = plan([work(3, prompt=1)], running, 5, LIMITS, FAST)
    assert step.evicted == [running[2]]
    assert step.admitted == []
    assert [row[0] for row in rows(step)] == [0, 1]


def test_the_oldest_is_never_evicted() -> None:
    running = [generating(0, 990, 20)]
    step = plan([], running, 7, LIMITS, FAST)
    assert step.evicted == []
    assert rows(step) == [(0, 0, 1, True)]


def test_the_first_answer_reads_the_prompt_for_all() -> None:
    step = plan([work(0, prompt=20, answers=3)], [], 8, LIMITS, FAST)
    assert rows(step) == [(0, 0, 20, True)]


def test_answers_that_come_back_continue_behind_the_shared_prompt() -> None:
    back = work(0, prompt=20, answers=2, written=5)
    assert rows(plan([], [back], 6, LIMITS, FAST)) == [(0, 0, 25, True)]
    back.sequences[0].computed = 25
    back.sequences[0].tokens.append(1)
    back.sequences[1].computed = 20
    assert rows(plan([], [back], 6, LIMITS, FAST)) == [(0, 0, 1, True), (0, 1, 5, True)]


def test_whose_money_is_gone_stops() -> None:
    rich, poor = generating(0, compute_ns_max=10_000), generating(1, compute_ns_max=1_000)
    step = plan([], [rich, poor], 6, LIMITS, FAST)
    assert step.exhausted == [poor]
    assert rows(step) == [(0, 0, 1, True)]


def test_a_chunk_is_no_longer_than_the_money_lasts() -> None:
    poor = work(0, prompt=50, compute_ns_max=15_500)
    assert rows(plan([poor], [], 8, LIMITS, FAST)) == [(0, 0, 10, False)]
    broke = work(0, prompt=50, compute_ns_max=100)
    step = plan([broke], [], 8, LIMITS, FAST)
    assert (step.admitted, step.exhausted, step.rows) == ([broke], [broke], [])


def test_slots() -> None:
    slots = Slots(2)
    one, two = Sequence(0, [1], 9), Sequence(1, [1], 9)
    assert {slots.take(one), slots.take(two)} == {0, 1}
    assert slots.free == 0
    one.computed = 5
    assert slots.release(one) in {0, 1}
    assert (one.slot, one.computed, slots.free) == (None, 0, 1)
    assert slots.release(one) is None
    assert slots.free == 1


class Day:
    """A whole day of made-up work, carried out as the engine would, with all limits checked."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.limits = Limits(cells=300, batch_tokens=64)
        self.slots = Slots(4)
        self.running: list[Work] = []
        self.waiting = [
            work(n, chance.randint(1, 120), answers=chance.randint(1, 3)) for n in range(20)
        ]
        for item in self.waiting:
            room = (self.limits.cells - item.prompt_tokens) // len(item.sequences)
            for sequence in item.sequences:
                sequence.tokens_max = item.prompt_tokens + min(room, chance.randint(1, 150))

    def step(self) -> None:
        step = plan(self.waiting, self.running, self.slots.free, self.limits, FAST)
        for item in step.evicted:
            self.move(item, self.running, self.waiting)
            for sequence in item.live:
                self.slots.release(sequence)
        for item in step.admitted:
            self.move(item, self.waiting, self.running)
            for sequence in item.live:
                self.slots.take(sequence)
        assert 0 < step.tokens <= self.limits.batch_tokens
        for row in step.rows:
            row.sequence.computed += row.tokens
        assert sum(map(self.cells_used, self.running)) <= self.limits.cells
        for row in step.rows:
            for sequence in self.sampling(row):
                sequence.tokens.append(1)
                sequence.ended = len(sequence.tokens) >= sequence.tokens_max
        for item in self.running:
            for sequence in item.sequences:
                if sequence.ended:
                    self.slots.release(sequence)
        self.running = [item for item in self.running if item.live]

    @staticmethod
    def move(item: Work, source: list[Work], target: list[Work]) -> None:
        source.remove(item)
        target.append(item)
        target.sort(key=lambda other: other.number)

    @staticmethod
    def cells_used(item: Work) -> int:
        own = sum(max(0, s.computed - item.prompt_tokens) for s in item.live)
        return own + max(min(s.computed, item.prompt_tokens) for s in item.live)

    @staticmethod
    def sampling(row: Row) -> list[Sequence]:
        ready = [row.sequence] if row.samples else []
        item = row.work
        if row.sequence is item.live[0] and row.sequence.computed >= item.prompt_tokens:
            for other in item.live[1:]:
                if not other.computed:
                    other.computed = item.prompt_tokens
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
