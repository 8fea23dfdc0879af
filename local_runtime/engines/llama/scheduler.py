"""Who computes what in the next step. Pure: reads the state of all work, changes none of it.

Order of things: whoever generates gets its token each step; what room the batch has left goes to
prompts, in chunks short enough that the others' next token is not late. Requests enter while there
are slots and cells. Both take turns between the fairness keys: somebody's second request comes
behind everybody's first. When cells run out the youngest leaves and comes back later with all it
had written. The oldest request always fits, so there is always progress.
"""

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import NamedTuple

from local_runtime.engines.cost import Forecast
from local_runtime.engines.llama.slots import Sequence, Work, cells_needed

# How long a step may take because of prompts: while others generate, and while nobody does.
CHUNK_NS_BESIDE_OUTPUT = 150_000_000
CHUNK_NS_ALONE = 500_000_000
CHUNK_TOKENS_MIN = 16
# From 64 tokens on llama.cpp computes attention in tiles (``GGML_FA_TILE_Q``). Behind a thousand
# others 34 tokens took as long as 98, so no portion is smaller where a larger one can be had.
TILE_TOKENS = 64
CHUNK_TOKENS_TILED = 72
# Whoever runs alone with a seed has its prompt read in the same portions every time.
CHUNK_TOKENS_SEEDED = 256
# Cells left free per answer when work joins other work, so that it is not evicted soon.
CELLS_SPARE = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What the context has room for."""

    cells: int
    batch_tokens: int


class Row(NamedTuple):
    """The next ``tokens`` of one sequence; ``samples``: a new one follows. Where it ``generates``
    they are the last sampled one and its ``drafted`` ones, otherwise a part of its prompt.
    """

    work: Work
    sequence: Sequence
    tokens: int
    samples: bool
    generates: bool = False


@dataclass(slots=True)
class Plan:
    """One step. ``exhausted`` work has no compute time left."""

    rows: list[Row] = field(default_factory=list)
    exhausted: list[Work] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)

    def sums(self) -> tuple[dict[Work, int], int, int, bool]:
        """Tokens of each work; those of prompts, those of answers; whether any are drafted."""
        tokens: dict[Work, int] = {}
        read = generated = 0
        drafted = False
        for work, _, count, _, generates in self.rows:
            tokens[work] = tokens.get(work, 0) + count
            if generates:
                generated += count
                drafted = drafted or count > 1
            else:
                read += count
        return tokens, read, generated, drafted


def in_turn(waiting: SequenceOf[Work], running: SequenceOf[Work] = ()) -> list[Work]:
    """``waiting`` in the order in which they come to their turn. ``running`` are ahead of them."""
    ahead: dict[str, int] = {}
    for work in running:
        ahead[work.fairness_key] = ahead.get(work.fairness_key, 0) + 1
    ranked = []
    for work in sorted(waiting, key=lambda each: each.number):
        rank = ahead.get(work.fairness_key, 0)
        ahead[work.fairness_key] = rank + 1
        ranked.append((rank, work.number, work))
    ranked.sort(key=lambda each: each[:2])
    return [work for _, _, work in ranked]


def to_evict(running: SequenceOf[Work], limits: Limits) -> list[Work]:
    """The youngest, until the rest have a cell for every token; the oldest is never evicted.

    ``running`` is in the order of numbers.
    """
    staying = list(running)
    evicted: list[Work] = []
    while len(staying) > 1 and cells_needed(staying) > limits.cells:
        evicted.append(staying.pop())
    return evicted


def next_to_enter(
    waiting: SequenceOf[Work],
    running: SequenceOf[Work],
    free_slots: int,
    limits: Limits,
    found: Callable[[Work], int],
) -> Work | None:
    """Whose turn it is, if there is room for it; nobody overtakes. ``found`` says how many of a
    prompt's tokens have cells already that other work keeps alive.
    """
    if not waiting or not free_slots:
        return None
    work = in_turn(waiting, running)[0]
    answers = len(work.live) + sum(len(other.live) for other in running)
    spare = CELLS_SPARE * answers if running else 0
    fits = (
        len(work.live) <= free_slots
        and cells_needed(running) + work.pending_cells - found(work) + spare <= limits.cells
    )
    return work if fits or not running else None


def plan(running: SequenceOf[Work], limits: Limits, forecast: Forecast, adapter: str = "") -> Plan:
    """The next step, for those on this ``adapter``; the others' turns are other steps.

    ``running`` is in the order of numbers, each with its slots.
    """
    step = Plan()
    staying: list[Work] = []
    others_generate = False
    reading = 0
    for work in running:
        if work.compute_ns_max is not None and not _affordable(work, forecast):
            step.exhausted.append(work)
        elif work.adapter != adapter:
            others_generate = others_generate or any(each.generates for each in work.live)
        else:
            staying.append(work)
            for each in work.sequences:
                if each.ended:
                    continue
                if each.generates:
                    step.rows.append(Row(work, each, 1 + len(each.drafted), True, True))
                elif each.follows is None:
                    reading += 1
    if not reading:
        return step
    alone = not others_generate and not step.rows
    room = _prompt_room(limits, forecast, step.tokens, reading, alone=alone)
    if len(running) == 1 and running[0].seeded:
        room = min(CHUNK_TOKENS_SEEDED, limits.batch_tokens)
    for work in in_turn(staying):
        room -= _read_prompt(work, step, room, limits.batch_tokens - step.tokens, forecast)
    return step


def kind_of_step(running: SequenceOf[Work], adapter: str) -> int | str | None:
    """Which steps the next one compares with: as many answers generating, or only a "prompt" read.
    None: it does both, or checks what was drafted, and compares with no other.
    """
    generating, reading = 0, False
    for work in running:
        if work.adapter != adapter:
            continue
        for each in work.sequences:
            if each.ended or each.follows is not None:
                continue
            if each.drafted:
                return None
            if each.generates:
                generating += 1
            else:
                reading = True
    return None if generating and reading else generating or "prompt"


def _affordable(work: Work, forecast: Forecast) -> bool:
    """Whether one more step of this work is likely to stay within what its hold pays for."""
    left_ns = work.compute_left_ns()
    if left_ns is None or work.live[0].follows is not None:
        return True
    tokens = sum(1 + len(each.drafted) for each in work.live if each.generates)
    return left_ns >= (tokens * forecast.output_token_ns or forecast.prompt_token_ns)


def _prompt_room(
    limits: Limits, forecast: Forecast, generating: int, reading: int, *, alone: bool
) -> int:
    """Tokens of prompts that this step may read. ``alone``: nobody waits for a next token. Where
    more wait for their first one, it is these that are kept waiting by short portions."""
    duration_ns = CHUNK_NS_ALONE
    if not alone:
        waiting = max(1.0, reading / max(1, generating))
        duration_ns = min(CHUNK_NS_ALONE, int(CHUNK_NS_BESIDE_OUTPUT * waiting))
    chunk = forecast.prompt_tokens_within(duration_ns)
    if chunk < CHUNK_TOKENS_TILED:
        tiled = forecast.prompt_tokens_within(CHUNK_NS_ALONE) >= CHUNK_TOKENS_TILED
        chunk = CHUNK_TOKENS_TILED if tiled else forecast.prompt_tokens_within(2 * duration_ns)
    return min(max(CHUNK_TOKENS_MIN, chunk), limits.batch_tokens - generating)


def _read_prompt(work: Work, step: Plan, room: int, most: int, forecast: Forecast) -> int:
    """Add rows for what of this work's prompts fits into ``room``, more than that where the rest
    would be a small portion, ``most`` at most; returns the tokens taken.
    """
    left_ns = work.compute_left_ns()
    taken = 0
    for at, sequence in enumerate(work.live):
        if sequence.generates:
            continue
        if sequence.follows is not None or (at and not sequence.computed):
            break  # it starts from the cells of another one, once that has read the prompt
        portion = min(_portion(sequence.pending, room - taken), most - taken)
        count = work.views.text_from(sequence.computed, portion)
        if left_ns is not None:
            count = min(count, left_ns // forecast.prompt_token_ns)
            left_ns -= count * forecast.prompt_token_ns
        if count <= 0:
            break
        step.rows.append(Row(work, sequence, count, samples=count == sequence.pending))
        taken += count
    return taken


def _portion(pending: int, room: int) -> int:
    """What to read of so many tokens: portions of one size, each at least a tile if the first is,
    for which they may be larger than ``room`` by less than a tile.
    """
    if pending <= room or room < TILE_TOKENS:
        return max(0, min(pending, room))
    portions = min(-(-pending // room), pending // TILE_TOKENS)
    return -(-pending // portions)
