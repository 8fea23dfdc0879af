"""How many threads compute: measured all the time, since it depends on the neighbours.

llama.cpp's threads wait for each other by spinning, many times in each step. When something else
wants one of the cores, using all of them is not a little slower but many times so (measured: two
threads on two cores fell from 98 to 27 tokens per second beside one busy process, one thread from
71 to 62). So now and then steps look at another number of threads, which stays if it is faster.
What looks cost above what those steps would have taken has a budget; only where steps suddenly
take another time than usual they look at once. The tuner is told the time. Times are nanoseconds.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from local_runtime.engines.step_costs import Kind, StepCost, StepCosts

_STEPS_COMPARED = 3
_GAIN = 0.9  # another number must take at most so much of the time
_WORSE = 1.1  # a look that takes so much of it is broken off
_SLOW = 1.4  # so many times the usual is a reason to look at fewer threads at once
_QUICK = 0.8  # and so many times, at more: the neighbours may have left
_SHARE = 0.01  # of the time that steps take; twice that beside a neighbour, which may leave
_GRACE_NS = 100_000_000
_INTERVAL_NS_MIN = 500_000_000
_INTERVAL_NS_MAX = 16_000_000_000  # an eighth of that beside a neighbour
_REST = 20  # an urgent look in vain is followed by a rest of so many times its cost


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def candidates(cores: int) -> list[int]:
    """Thread counts worth trying on so many cores, in rising order."""
    return sorted({max(1, cores // 2), max(1, cores - 1), max(1, cores)})


@dataclass(slots=True)
class _Look:
    """Some steps with another number, each as a ratio to what is known of its kind."""

    at: int
    kind: Kind
    urgent: bool = False  # whatever the budget
    ratios: list[float] = field(default_factory=list)
    extra_ns: float = 0.0


class ThreadTuner:
    """Chooses among ``counts``, in rising order. Ask before a step, and tell of it afterwards.

    A look waits while steps run whose kind is too dear or not known. The very first one does not
    wait for the budget, but for steps in which only answers generate, as none are shorter.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = list(counts)
        self._top = self._current = len(self._counts) - 1
        self._costs = [StepCosts() for _ in self._counts]
        self._credit_ns = float(_GRACE_NS)
        self._interval_ns = self._urgent_interval_ns = _INTERVAL_NS_MIN
        self._next_ns = self._next_urgent_ns = self._turn = 0
        self._asked: tuple[Kind, int] = (None, self._current)
        self._look: _Look | None = None

    @property
    def settled(self) -> int:
        """The best number so far."""
        return self._counts[self._current]

    def choose(self, kind: Kind, now_ns: int) -> int:
        """Threads for the next step, which will be of this kind; None: of none that compares."""
        at = self._current
        cost = self._costs[at].get(kind)
        if self._top and cost is not None and cost.fresh(now_ns):
            self._begin(kind, cost, now_ns)
            look = self._look
            if look is not None and (
                look.urgent
                or (look.ratios and look.kind == kind)
                or self._extra_ns(look.at, kind, cost) <= self._credit_ns
            ):
                at = look.at
        self._asked = (kind, at)
        return self._counts[at]

    def observe(self, kind: Kind, cost: float, wall_ns: int, now_ns: int) -> None:
        """A step took ``wall_ns``; ``cost`` is what of it compares with others of its kind."""
        (asked_kind, at), self._asked = self._asked, (None, self._current)
        before = self._costs[self._current].of(kind)
        earned_ns = wall_ns * _SHARE * (1 if self._current == self._top else 2)
        # Nothing is saved up for steps that are dearer than others, as long as there are others.
        enough_ns = float(_GRACE_NS)
        if self._top and before.recent:
            enough_ns = max(enough_ns, self._extra_ns(self._others()[0], kind, before))
        self._credit_ns = min(enough_ns, self._credit_ns + earned_ns)
        if at == self._current:
            before.add(cost, wall_ns, now_ns)
        elif kind == asked_kind:
            self._costs[at].of(kind).add(cost, wall_ns, now_ns)
            self._weigh(cost / before.now, wall_ns, now_ns)

    def _others(self, towards: int = 0) -> list[int]:
        """In turn; ``towards`` -1: those with fewer threads, 1: with more."""
        here, numbers = self._current, list(range(len(self._counts)))
        first = self._turn % len(numbers)
        numbers = numbers[first:] + numbers[:first]
        return [at for at in numbers if at != here and (at - here) * towards >= 0]

    def _expected(self, at: int, kind: Kind, cost: StepCost) -> float:
        """How many times as long as now a step with another number is likely to take."""
        seen = self._costs[at].get(kind)
        if seen is not None:
            return seen.now / cost.now
        now, then = self._counts[self._current], self._counts[at]
        return max(now / then, then / now)

    def _extra_ns(self, at: int, kind: Kind, cost: StepCost) -> float:
        return cost.wall_ns * (self._expected(at, kind, cost) - 1)

    def _begin(self, kind: Kind, cost: StepCost, now_ns: int) -> None:
        """Begin a look, if it is time for one."""
        urgent: list[int] = []
        if now_ns >= self._next_urgent_ns:
            urgent = [at for at in self._others() if self._expected(at, kind, cost) <= _GAIN]
            if not urgent and cost.now > _SLOW * cost.usual:
                urgent = self._others(-1)
            elif not urgent and cost.now < _QUICK * cost.usual:
                urgent = self._others(1)
        if urgent:
            if self._look is None or not self._look.ratios:
                self._look = _Look(urgent[0], kind)
            self._look.urgent = True
        elif self._look is None and now_ns >= self._next_ns:
            other, first = self._others()[0], not self._turn and isinstance(kind, int)
            if first or self._extra_ns(other, kind, cost) <= self._credit_ns:
                self._look = _Look(other, kind, urgent=first)

    def _weigh(self, ratio: float, wall_ns: int, now_ns: int) -> None:
        """A step of the look took ``ratio`` times what one with the settled number does."""
        look = self._look
        assert look is not None
        look.ratios.append(ratio)
        extra_ns = wall_ns * max(0.0, 1 - 1 / ratio)
        look.extra_ns += extra_ns
        self._credit_ns -= extra_ns
        mean = fmean(look.ratios)
        if mean <= _WORSE and len(look.ratios) < _STEPS_COMPARED:
            return
        self._look = None
        if mean <= _GAIN:
            self._current = look.at
            self._costs[look.at].forget_recent()
            self._interval_ns = self._urgent_interval_ns = _INTERVAL_NS_MIN
            self._next_urgent_ns = 0
        else:
            longest_ns = _INTERVAL_NS_MAX // (1 if self._current == self._top else 8)
            self._interval_ns = min(longest_ns, 4 * self._interval_ns)
            if look.urgent and self._turn:  # the first is not for a reason
                rest_ns = max(self._urgent_interval_ns, int(_REST * look.extra_ns))
                self._next_urgent_ns = now_ns + rest_ns
                self._urgent_interval_ns = min(_INTERVAL_NS_MAX, 2 * self._urgent_interval_ns)
        self._turn += 1
        self._next_ns = now_ns + self._interval_ns
