"""Whose turn it is among the adapters of one model. Pure.

llama.cpp applies an adapter to all of a step, so requests of different adapters cannot share one.
They take turns: each adapter with something to do gets as many steps as any other, so that every
stream gets its tokens at the same pace, whichever adapter it is on and however many share it. A
turn is a few steps long, since changing the adapter costs time; and short enough that the others'
next tokens are not late.
"""

from collections.abc import Iterable

from local_runtime.engines.llama.slots import Work

STEPS = 8
DURATION_NS = 150_000_000


class Turns:
    """Remembers whose turn it is, and since when."""

    def __init__(self) -> None:
        self._order: list[str] = []  # all who ever had a turn, the one longest ago first
        self._current = ""
        self._steps = 0
        self._spent_ns = 0

    @property
    def current(self) -> str:
        """The adapter of the step that is being made, or of the last one."""
        return self._current

    def whose(self, running: Iterable[Work]) -> str:
        """The adapter of the next step. Work that waits for another's prompt has nothing to do."""
        running = list(running)
        if all(work.adapter == self._current for work in running):
            return self._current
        busy = {work.adapter: None for work in running if work.live and not _waits(work)}
        if not busy:
            return self._current
        over = self._steps >= STEPS or self._spent_ns >= DURATION_NS
        if self._current not in busy or (over and len(busy) > 1):
            fresh = [name for name in busy if name not in self._order]
            order = [name for name in [*fresh, *self._order] if name in busy]
            self._take(next(name for name in order if name != self._current))
        return self._current

    def spent(self, duration_ns: int) -> None:
        """The one whose turn it is has computed for so long, in one step."""
        self._steps += 1
        self._spent_ns += duration_ns

    def _take(self, name: str) -> None:
        if name in self._order:
            self._order.remove(name)
        self._order.append(name)
        self._current, self._steps, self._spent_ns = name, 0, 0


def _waits(work: Work) -> bool:
    return work.live[0].follows is not None
