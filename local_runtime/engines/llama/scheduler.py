"""Who computes what in the next step. Pure: reads the state of all work, changes none of it.

Order of things: whoever generates gets one token each step; what room the batch has left goes to
prompts, in the order they came, in chunks short enough that the others' next token is not late.
Requests enter in order while there are slots and cells; when cells run out the youngest leaves and
comes back later with all it had written. The oldest request always fits, so there is always
progress.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

from local_runtime.engines.cost import Forecast
from local_runtime.engines.llama.slots import Sequence, Work

# How long a step may take because of prompts: while others generate, and while nobody does.
CHUNK_NS_BESIDE_OUTPUT = 120_000_000
CHUNK_NS_ALONE = 500_000_000
CHUNK_TOKENS_MIN = 16
# Cells left free per answer when work joins other work, so that it is not evicted soon.
CELLS_SPARE = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What the context has room for."""

    cells: int
    batch_tokens: int


@dataclass(frozen=True, slots=True)
class Row:
    """The next ``tokens`` pending tokens of one sequence; ``samples``: a new one follows."""

    work: Work
    sequence: Sequence
    tokens: int
    samples: bool


@dataclass(slots=True)
class Plan:
    """One step. ``exhausted`` work has no compute time left; ``evicted`` goes back in line."""

    rows: list[Row] = field(default_factory=list)
    admitted: list[Work] = field(default_factory=list)
    evicted: list[Work] = field(default_factory=list)
    exhausted: list[Work] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)


def plan(
    waiting: SequenceOf[Work],
    running: SequenceOf[Work],
    free_slots: int,
    limits: Limits,
    forecast: Forecast,
) -> Plan:
    """The next step. ``waiting`` and ``running`` are in the order of their numbers."""
    step = Plan()
    staying: list[Work] = []
    for work in running:
        (staying if _affordable(work, forecast) else step.exhausted).append(work)
    _evict_youngest(staying, limits.cells, step)
    for work in staying:
        step.rows += [Row(work, s, 1, samples=True) for s in work.live if s.generates]
    room = _prompt_room(limits, forecast, generating=len(step.rows))
    for work in staying:
        room -= _read_prompt(work, step, room, forecast)
    cells_free = limits.cells - sum(work.cells for work in staying)
    answers = sum(len(work.live) for work in staying)
    for work in waiting:
        answers += len(work.live)
        spare = CELLS_SPARE * answers if answers > len(work.live) else 0
        fits = len(work.live) <= free_slots and work.cells + spare <= cells_free
        if step.evicted or not fits or room < CHUNK_TOKENS_MIN:
            break
        free_slots -= len(work.live)
        cells_free -= work.cells
        step.admitted.append(work)
        if _affordable(work, forecast):
            room -= _read_prompt(work, step, room, forecast)
        else:
            step.exhausted.append(work)
    return step


def _affordable(work: Work, forecast: Forecast) -> bool:
    """Whether one more step of this work is likely to stay within what its hold pays for."""
    left_ns = work.compute_left_ns()
    generating = len([sequence for sequence in work.live if sequence.generates])
    needed_ns = generating * forecast.output_token_ns or forecast.prompt_token_ns
    return left_ns is None or left_ns >= needed_ns


def _evict_youngest(staying: list[Work], cells: int, step: Plan) -> None:
    """Until the rest have a cell for every token; the oldest is never evicted."""
    while len(staying) > 1 and sum(work.cells for work in staying) > cells:
        step.evicted.append(staying.pop())


def _prompt_room(limits: Limits, forecast: Forecast, *, generating: int) -> int:
    """Tokens of prompts that this step may read."""
    duration_ns = CHUNK_NS_BESIDE_OUTPUT if generating else CHUNK_NS_ALONE
    chunk = max(CHUNK_TOKENS_MIN, forecast.prompt_tokens_within(duration_ns))
    return min(chunk, limits.batch_tokens - generating)


def _read_prompt(work: Work, step: Plan, room: int, forecast: Forecast) -> int:
    """Add rows for what of this work's prompts fits into ``room``; returns the tokens taken."""
    left_ns = work.compute_left_ns()
    taken = 0
    for at, sequence in enumerate(work.live):
        if sequence.generates:
            continue
        if at and not sequence.computed:
            break  # it starts from the cells of the first one, once that has read the prompt
        count = min(sequence.pending, room - taken)
        if left_ns is not None:
            count = min(count, left_ns // forecast.prompt_token_ns)
            left_ns -= count * forecast.prompt_token_ns
        if count <= 0:
            break
        step.rows.append(Row(work, sequence, count, samples=count == sequence.pending))
        taken += count
    return taken
