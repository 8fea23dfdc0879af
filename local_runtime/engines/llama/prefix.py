"""Prompts that start alike share their cells: with what runs, and with what ran before.

A prompt that starts like one that runs, or is being read right now, takes over the cells of that
one (uncopied in a unified cache, copied where each sequence has its own) and reads only the rest.
When an answer ends, its cells are copied into ordinary memory, and back when a prompt starts like
it; the least recently used goes first. They do not stay in the cache itself, since each step looks
at all of its cells: 4,000 more made steps of one stream a tenth longer, and of 16 as well, while
copying 1,000 of a small model took 4 ms, and reading them anew seconds. What is shared stays within
one ``scope`` and one adapter.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from local_runtime.engines.llama.cells import Cells, Path
from local_runtime.engines.llama.native import Context, State
from local_runtime.engines.llama.slots import Sequence, Tokens, Work

# Shorter beginnings are not worth it: every prompt of a template begins with a few equal tokens.
SHARED_TOKENS_MIN = 16
# How much more somebody else's reading must promise than what is there, to be waited for.
FOLLOW_TOKENS_MIN = 32
_LOOK_AHEAD = 16


@dataclass(slots=True, eq=False)
class Kept:
    """The cells of an answer that has ended, as ``data`` that the context can take back."""

    tokens: Tokens
    scope: str
    adapter: str
    data: State


@dataclass(frozen=True, slots=True)
class Found:
    """The best beginning for a prompt: ``tokens`` of it have cells under ``slot``, or are ``kept``.

    ``leader`` runs and has, or will have, ``leader_tokens`` of it.
    """

    tokens: int = 0
    slot: int | None = None
    path: Path = None
    kept: Kept | None = None
    leader: Sequence | None = None
    leader_tokens: int = 0


class Prefixes:
    """What is kept, and what can be shared. ``whole_only``: the model's memory cannot go back, so
    that only a whole kept sequence can be continued.
    """

    def __init__(
        self,
        context: Context,
        cells: Cells,
        *,
        bytes_max: int,
        whole_only: bool = False,
    ) -> None:
        """``bytes_max`` bounds what is kept."""
        self._context = context
        self._cells = cells
        self._bytes_max = bytes_max
        self._whole_only = whole_only
        self.kept: list[Kept] = []  # least recently used first
        self.kept_bytes = 0

    @property
    def kept_tokens(self) -> int:
        """Tokens of all that is kept."""
        return sum(len(kept.tokens) for kept in self.kept)

    def find(self, work: Work, running: Iterable[Work]) -> Found:
        """The longest beginning of the work's prompt that has cells, or will have."""
        if work.scope is None:
            return Found()
        tokens = np.asarray(work.live[0].tokens, dtype=np.int32)
        most = len(tokens) - 1  # the last one is always computed: it gives the first new token
        best = Found()
        for kept in self.kept:
            if kept.scope == work.scope and kept.adapter == work.adapter:
                count = work.views.whole(min(common(tokens, kept.tokens), most))
                if self._whole_only and count < len(kept.tokens):
                    continue
                if count > best.tokens:
                    best = Found(count, kept=kept)
        if not self._whole_only:
            best = self._among_running(work, tokens, most, running, best)
        return best if max(best.tokens, best.leader_tokens) >= SHARED_TOKENS_MIN else Found()

    def _among_running(
        self, work: Work, tokens: Tokens, most: int, running: Iterable[Work], best: Found
    ) -> Found:
        leader, leader_tokens = None, 0
        for other in running:
            first = other.live[0]
            if other.scope != work.scope or other.adapter != work.adapter or first.slot is None:
                continue
            count = work.views.whole(min(common(tokens, other.prompt), most))
            ready = work.views.whole(min(count, first.computed))
            if ready > best.tokens:
                best = Found(ready, first.slot, first.path)
            # Whoever waits for somebody leads nobody: in the end they would wait for each other.
            if count > leader_tokens and first.follows is None:
                leader, leader_tokens = first, count
        if leader is None:
            return best
        return Found(best.tokens, best.slot, best.path, best.kept, leader, leader_tokens)

    def begin(self, sequence: Sequence, found: Found) -> None:
        """Give the sequence, which has a slot and nothing else, the cells that were found."""
        assert sequence.slot is not None and not sequence.computed
        if found.tokens >= SHARED_TOKENS_MIN:
            if found.slot is not None:
                self._context.share(found.slot, sequence.slot, sequence.position(found.tokens))
                sequence.path = self._cells.fork(found.path, found.tokens)
                sequence.computed = found.tokens
            elif found.kept is not None:
                self._take_back(sequence, sequence.slot, found.kept, found.tokens)
        ahead = found.leader_tokens - sequence.computed
        waits = found.leader is not None and found.leader_tokens > found.leader.computed
        if waits and ahead >= FOLLOW_TOKENS_MIN:
            sequence.follows, sequence.follow_tokens = found.leader, found.leader_tokens

    def _take_back(self, sequence: Sequence, slot: int, kept: Kept, tokens: int) -> None:
        """The first ``tokens`` of what was kept, if there is room for all of it for a moment."""
        whole = len(kept.tokens)
        room = min(self._context.room, self._context.cells - self._cells.used)
        if whole > room or not self._context.restore(slot, kept.data):
            self._context.forget(slot)
            return
        sequence.path = self._cells.extend(None, whole)
        if tokens < whole:
            self._context.truncate(slot, tokens)
            sequence.path = self._cells.truncate(sequence.path, tokens)
        sequence.computed = tokens
        # Every prompt shares the template's first lines with all others: that is no use.
        if 2 * tokens >= whole:
            self._touch(kept)

    def keep(self, sequence: Sequence, work: Work) -> None:
        """Free the cells of a sequence that leaves, and keep a copy where it can be of use."""
        slot = sequence.slot
        assert slot is not None
        path, sequence.path = sequence.path, None
        tokens = np.asarray(sequence.tokens[: sequence.computed], dtype=np.int32)
        if self._is_useful(sequence, work, tokens):
            data = self._context.save(slot)
            self.kept.append(Kept(tokens, work.scope or "", work.adapter, data))
            self.kept_bytes += len(data)
            while self.kept_bytes > self._bytes_max:
                self._drop(self.kept[0])
        self._context.forget(slot)
        self._cells.release(path)

    def _is_useful(self, sequence: Sequence, work: Work, tokens: Tokens) -> bool:
        """Whether it is anything that is not kept yet; what it goes beyond is kept no longer."""
        if work.scope is None or sequence.index or len(tokens) < SHARED_TOKENS_MIN:
            return False
        if sequence.position(len(tokens)) != len(tokens):
            return False  # llama.cpp does not save where in a picture a cell is
        for kept in list(self.kept):
            if kept.scope == work.scope and kept.adapter == work.adapter and not self._whole_only:
                shared = common(tokens, kept.tokens)
                if shared == len(tokens):
                    self._touch(kept)
                    return False
                if shared == len(kept.tokens):
                    self._drop(kept)
        return True

    def clear(self) -> None:
        """Keep nothing."""
        while self.kept:
            self._drop(self.kept[0])

    def _touch(self, kept: Kept) -> None:
        self.kept.remove(kept)
        self.kept.append(kept)

    def _drop(self, kept: Kept) -> None:
        self.kept.remove(kept)
        self.kept_bytes -= len(kept.data)


def common(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with."""
    length = min(len(one), len(other))
    ahead = min(length, _LOOK_AHEAD)
    if not np.array_equal(one[:ahead], other[:ahead]):
        length = ahead
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length
