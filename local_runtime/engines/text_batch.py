"""Which texts are computed together next. Pure: no llama.cpp, no clock.

All that waits, of all requests, fills one batch after another. Whose turn it is goes by tokens: the
fairness key that was served least comes first, and within a key whoever came first. A model that
must see a text whole (one without a memory, or that looks ahead) gets each in one batch; the
others may read a long text in parts, one such text at a time.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

PART_TOKENS_MIN = 32


@dataclass(slots=True, eq=False)
class Text:
    """One text as tokens. ``place`` is its sequence in the batch, while it has one."""

    work: "Work"
    index: int
    tokens: list[int]
    computed: int = 0
    place: int | None = None

    @property
    def left(self) -> int:
        """Tokens that are still to be computed."""
        return len(self.tokens) - self.computed


@dataclass(slots=True, eq=False)
class Work:
    """One request: its texts that wait, and what was found for those that are done. ``tokens`` are
    those of all its texts, ``read`` those computed up to now.
    """

    request_id: str
    number: int
    key: str
    compute_ns_max: int | None
    size: int | None = None
    is_rank: bool = False
    waiting: deque[Text] = field(default_factory=deque)
    found: dict[int, bytes | float] = field(default_factory=dict)
    texts: int = 0
    tokens: int = 0
    read: int = 0
    announced: bool = False
    heard_ns: int = 0
    compute_ns: int = 0

    @property
    def done(self) -> bool:
        """Whether every text has its answer."""
        return len(self.found) == self.texts

    def compute_left_ns(self) -> int | None:
        """What may still be billed; None: all that it takes."""
        return None if self.compute_ns_max is None else self.compute_ns_max - self.compute_ns


@dataclass(slots=True)
class Row:
    """So many tokens of a text in a batch."""

    text: Text
    tokens: int


class Turns:
    """How many tokens each fairness key was served, among those that have work."""

    def __init__(self) -> None:
        self._served: dict[str, int] = {}

    def of(self, keys: Iterable[str]) -> dict[str, int]:
        """The count of each key. One that comes anew begins beside the one served least, so that
        it neither waits for the past of others nor they for its own."""
        known = {key: self._served[key] for key in keys if key in self._served}
        least = min(known.values(), default=0)
        self._served = {key: known.get(key, least) - least for key in keys}
        return self._served

    def serve(self, key: str, tokens: int) -> None:
        """The key got so much of a batch."""
        self._served[key] += tokens


def fill(
    works: Iterable[Work], turns: Turns, *, tokens_max: int, places_max: int, whole: bool
) -> list[Row]:
    """The next batch. ``tokens_max`` is what it usually holds; a text that must be seen whole and
    is longer than that gets a batch of its own. Texts leave their work's ``waiting`` only when the
    last of their tokens is in.
    """
    lines: dict[str, deque[Work]] = {}
    for work in works:
        if work.waiting:
            lines.setdefault(work.key, deque()).append(work)
    served = turns.of(lines)
    rows: list[Row] = []
    room = tokens_max
    # A text that was begun holds memory: it is finished first.
    begun = [key for key, line in lines.items() if line[0].waiting[0].computed]
    while lines and room > 0 and len(rows) < places_max:
        key = begun.pop() if begun else min(lines, key=lambda each: served[each])
        work = lines[key][0]
        text = work.waiting[0]
        tokens = text.left
        if tokens > room and not (whole and not rows):
            if whole or room < PART_TOKENS_MIN:
                del lines[key]  # its turn comes first in the next batch; others fill this one up
                continue
            tokens = room
        rows.append(Row(text, tokens))
        room -= tokens
        turns.serve(key, tokens)
        if tokens == text.left:
            work.waiting.popleft()
            if not work.waiting:
                lines[key].popleft()
                if not lines[key]:
                    del lines[key]
    return rows
