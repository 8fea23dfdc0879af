"""Whether all sequences share one cache, or have one each: which is better, and when to change.

In llama.cpp's unified cache anyone may have as many cells as are free, and equal beginnings are
there once. But each token of a step looks at the cells of all sequences, if only to find that they
are not its own: with 16 streams of 120 tokens a step took 85 ms of a small model, and 67 ms with a
cache for each. Those are all of one size. So the cache is divided while everybody fits and many
run, and undivided otherwise. To change between the two is to make the cache anew, with a copy of
what is in it (0.2 s for 256 MiB), so it is not done often. Pure: it is told the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ROOM_MIN = 256
_ALIGNMENT = 256  # llama.cpp rounds the room of a sequence up to a multiple of this
# What it costs to pass over one cell that is another sequence's, for each head: one thread of a
# processor (measured), and a device (a guess).
SCAN_NS = 3.0
SCAN_NS_ON_DEVICE = 0.02
_CHANGE_BYTES_PER_NS = 1.5  # before the first one was measured
_SEQUENCES_MIN = 3
_REST_NS_MIN = 1_000_000_000
_REST_NS_MAX = 120_000_000_000
_SHORT_STAY_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Need:
    """Cells of one sequence: for what it has and its next step; and what it may soon come to."""

    now: int
    soon: int


class Layout:
    """``streams`` caches; 1: the unified one. ``bytes_max`` bounds what a change has to copy."""

    def __init__(
        self, *, cells: int, sequences_max: int, cell_bytes: int, bytes_max: int, scan_ns: float
    ) -> None:
        """``scan_ns``: what a cell of somebody else costs each token of a step; 0: never divide."""
        self.streams = 1
        self._cells = cells
        self._moved_max = bytes_max // max(1, cell_bytes)
        self._scan_ns = scan_ns
        self._change_ns = cells * cell_bytes / _CHANGE_BYTES_PER_NS
        self._choices = _choices(cells, sequences_max) if scan_ns else []
        self._rest_ns = _REST_NS_MIN
        self._rest_until_ns = 0
        self._since_ns = 0

    def room(self, streams: int) -> int:
        """Cells that one sequence may have at most."""
        return self._cells if streams == 1 else _room(self._cells, streams)

    def holds(self, needs: Sequence[Need]) -> bool:
        """Whether what is there can stay as it is. Room in the unified cache is not looked at."""
        return self.streams == 1 or self._fits(self.streams, [need.now for need in needs])

    def slack(self, needs: Sequence[Need]) -> int:
        """So many cells more for each, and it still holds."""
        if self.streams == 1:
            return 0
        now = [need.now for need in needs]
        left = (self._moved_max - sum(now)) // max(1, len(now))
        return max(0, min(left, self.room(self.streams) - max(now, default=0)))

    def best(self, needs: Sequence[Need]) -> int:
        """For the most sequences that still have room to grow; 1 where nothing else will do."""
        soon = [need.soon for need in needs]
        return next((streams for streams in self._choices if self._fits(streams, soon)), 1)

    def better(self, needs: Sequence[Need], used: int, now_ns: int) -> int | None:
        """Another layout that is worth the change, if answers go on for as long as is expected.
        ``used``: cells, shared ones once."""
        if self.streams > 1 or len(needs) < _SEQUENCES_MIN or now_ns < self._rest_until_ns:
            return None
        steps = sum(need.soon - need.now for need in needs) // len(needs)
        grown = used + steps * len(needs) // 2
        foreign = sum(max(0, grown - need.now) for need in needs)
        if foreign * self._scan_ns * steps < self._change_ns:
            return None
        streams = self.best(needs)
        return streams if streams > 1 else None

    def changed(self, streams: int, took_ns: int, now_ns: int) -> None:
        """It is another one now. Whoever comes back soon waits the longer before the next try."""
        self._change_ns = took_ns
        if self.streams > 1 and streams == 1:
            short = now_ns - self._since_ns < _SHORT_STAY_NS
            self._rest_ns = min(2 * self._rest_ns, _REST_NS_MAX) if short else _REST_NS_MIN
            self._rest_until_ns = now_ns + self._rest_ns
        if streams > 1 and self.streams == 1:
            self._since_ns = now_ns
        self.streams = streams

    def _fits(self, streams: int, lengths: Sequence[int]) -> bool:
        return (
            len(lengths) <= streams
            and max(lengths, default=0) <= self.room(streams)
            and sum(lengths) <= self._moved_max
        )


def _room(cells: int, streams: int) -> int:
    return cells // streams // _ALIGNMENT * _ALIGNMENT


def _choices(cells: int, sequences_max: int) -> list[int]:
    """For all sequences, half of them, and so on, where that leaves each a room."""
    found = []
    streams = sequences_max
    while streams > 1:
        if _room(cells, streams) >= ROOM_MIN:
            found.append(streams)
        streams //= 2
    return found
