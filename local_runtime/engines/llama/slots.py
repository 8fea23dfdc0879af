"""What is being generated: sequences, the requests they belong to, and the slots they sit in.

Plain data that the scheduler reads and the engine's loop writes; nothing here knows llama.cpp.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from local_runtime.engines.llama.cells import Path, cells_of
from local_runtime.engines.llama.views import NO_VIEWS, Views
from plugins.contract import Usage

Tokens = NDArray[np.int32]


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer of a request.

    ``tokens`` is the prompt and what was generated; the first ``computed`` of them have cells in
    the cache (``path``). It ends at ``tokens_max`` tokens. ``slot`` is llama.cpp's sequence id,
    None while it has no place. While ``follows`` is set it waits for another sequence that is
    reading the same prompt, and goes on from the first ``follow_tokens`` cells of that one.
    ``drafted`` are tokens that are guessed to come next, to be checked in the next step.
    """

    index: int
    tokens: list[int]
    tokens_max: int
    slot: int | None = None
    computed: int = 0
    ended: bool = False
    path: Path = None
    follows: "Sequence | None" = None
    follow_tokens: int = 0
    drafted: list[int] = field(default_factory=list)
    views: Views = NO_VIEWS

    def position(self, index: int) -> int:
        """llama.cpp's position of a token: its index, but behind pictures that are numbered in
        rows and columns."""
        return self.views.position(index)

    @property
    def pending(self) -> int:
        """Tokens that must be computed before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def generates(self) -> bool:
        """Whether its prompt has been read, so that each step gives one token."""
        computed = self.computed
        return computed > 0 and len(self.tokens) - computed == 1 and self.follows is None


@dataclass(slots=True, eq=False)
class Work:
    """One request: ``n`` sequences over one prompt, and one bill. ``number`` is its place in line.

    The first live sequence reads the prompt; the others start where it ends, from the same cells.
    ``scope`` and ``adapter`` say with whom cells may be shared (``scope`` None: with nobody).
    ``cached_tokens`` of the prompt were not read but found. ``seeded``: the client wants the same
    text again for the same seed.
    """

    request_id: str
    number: int
    prompt: Tokens
    sequences: list[Sequence]
    compute_ns_max: int | None = None
    fairness_key: str = ""
    scope: str | None = ""
    adapter: str = ""
    seeded: bool = False
    compute_ns: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    prompt_read: int = 0
    cached_tokens: int | None = None
    announced: bool = False  # its ``Admitted`` went out; it does not again after an eviction
    heard_ns: int = 0  # when its last event went out
    views: Views = NO_VIEWS
    looked_ns: int = 0  # what decoding its pictures took, as long as it is on no bill

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt)

    @property
    def live(self) -> list[Sequence]:
        """Sequences that have not ended."""
        return [sequence for sequence in self.sequences if not sequence.ended]

    @property
    def pending_cells(self) -> int:
        """Cells that it still needs before all its answers generate, what it shares left out."""
        live = self.live
        total = 0
        for at, sequence in enumerate(live):
            begun = sequence.computed or (self.prompt_tokens if at else 0)
            total += len(sequence.tokens) - max(begun, sequence.follow_tokens)
        return total

    def compute_left_ns(self) -> int | None:
        """What the bill may still grow by; None: without limit."""
        return None if self.compute_ns_max is None else self.compute_ns_max - self.compute_ns


def usage_of(work: Work) -> Usage:
    """What a request has used up to now."""
    cached = work.cached_tokens or 0
    return Usage(
        input_tokens=max(0, work.prompt_read - cached),
        cache_read_tokens=cached,
        output_tokens=work.output_tokens,
        reasoning_tokens=work.reasoning_tokens,
        compute_ns=work.compute_ns,
    )


def cells_needed(works: Iterable[Work]) -> int:
    """Cells that these have, and those that they need to go on."""
    works = list(works)
    held = cells_of(sequence.path for work in works for sequence in work.live)
    return held + sum(work.pending_cells for work in works)


@dataclass(slots=True)
class Slots:
    """llama.cpp's sequence ids: which of the ``count`` are free. ``changes`` counts what came and
    went."""

    count: int
    changes: int = 0
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._free = list(range(self.count))

    @property
    def free(self) -> int:
        """Sequences that could start to run."""
        return len(self._free)

    @property
    def running(self) -> int:
        """Sequences that have a place."""
        return self.count - len(self._free)

    @property
    def end(self) -> int:
        """The first place behind all that are taken."""
        free = set(self._free)
        return next((slot + 1 for slot in range(self.count - 1, -1, -1) if slot not in free), 0)

    def take(self, sequence: Sequence) -> int:
        """Give the sequence the first free place; there must be one."""
        assert sequence.slot is None
        self.changes += 1
        sequence.slot = heappop(self._free)
        return sequence.slot

    def release(self, sequence: Sequence) -> None:
        """Take its place back; nothing may have cells under its id any more."""
        slot, sequence.slot = sequence.slot, None
        assert slot is not None and slot not in self._free
        self.changes += 1
        heappush(self._free, slot)
