"""What is being generated: sequences, the requests they belong to, and the slots they sit in.

Plain data that the scheduler reads and the engine's loop writes; nothing here knows llama.cpp.
"""

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer of a request.

    ``tokens`` is the prompt and what was generated; the first ``computed`` of them have cells in
    the cache. It ends at ``tokens_max`` tokens. ``slot`` is None while it has no place.
    """

    index: int
    tokens: list[int]
    tokens_max: int
    slot: int | None = None
    computed: int = 0
    ended: bool = False

    @property
    def pending(self) -> int:
        """Tokens that must be computed before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def generates(self) -> bool:
        """Whether its prompt has been read, so that each step gives one token."""
        return self.computed > 0 and self.pending == 1


@dataclass(slots=True, eq=False)
class Work:
    """One request: ``n`` sequences over one prompt, and one bill. ``number`` is its place in line.

    The first live sequence reads the prompt; the others start where it ends, from the same cells.
    """

    request_id: str
    number: int
    prompt_tokens: int
    sequences: list[Sequence]
    compute_ns_max: int | None = None
    compute_ns: int = 0
    output_tokens: int = 0
    prompt_read: int = 0
    announced: bool = False  # its ``Admitted`` went out; it does not again after an eviction

    @property
    def live(self) -> list[Sequence]:
        """Sequences that have not ended."""
        return [sequence for sequence in self.sequences if not sequence.ended]

    @property
    def cells(self) -> int:
        """Cells that it needs to go on: one for each token, the prompt's only once."""
        written = sum(len(sequence.tokens) - self.prompt_tokens for sequence in self.live)
        return self.prompt_tokens + written

    def compute_left_ns(self) -> int | None:
        """What the bill may still grow by; None: without limit."""
        return None if self.compute_ns_max is None else self.compute_ns_max - self.compute_ns


@dataclass(slots=True)
class Slots:
    """Which of the ``count`` places are free."""

    count: int
    _free: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._free = list(range(self.count - 1, -1, -1))

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, sequence: Sequence) -> int:
        """Give the sequence a place; there must be a free one."""
        assert sequence.slot is None
        sequence.slot = self._free.pop()
        return sequence.slot

    def release(self, sequence: Sequence) -> int | None:
        """Take its place back, and what it had computed with it. None: it had no place."""
        slot, sequence.slot = sequence.slot, None
        sequence.computed = 0
        if slot is not None:
            assert slot not in self._free
            self._free.append(slot)
        return slot
