"""How many threads compute: measured all the time, since it depends on the neighbours.

llama.cpp's threads wait for each other by spinning, many times in each step. When something else
wants one of the cores, using all of them is not a little slower but many times so (measured: two
threads on two cores fell from 98 to 27 tokens per second beside one busy process, one thread from
71 to 62). So now and then, and whenever steps have become slow, a few steps run with another number
of threads, and the faster number stays. Pure: it is told the time.
"""

from collections import deque
from collections.abc import Sequence

_STEPS_COMPARED = 3
_GAIN_PERCENT = 90  # another number must take at most so much of the time
_HOPELESS = 2  # a trial this many times slower is broken off
_SLOW = 1.6  # so many times the usual is a reason to look
_USUAL_WEIGHT = 0.05
_INTERVAL_NS_MIN = 500_000_000
_INTERVAL_NS_MAX = 8_000_000_000


def candidates(cores: int) -> list[int]:
    """Thread counts worth trying on so many cores; the last one is tried first."""
    return sorted({max(1, cores // 2), max(1, cores - 1), max(1, cores)})


class ThreadTuner:
    """Chooses among ``counts``. Tell it of each step, and use ``threads`` for the next one."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = list(counts)
        self._current = len(self._counts) - 1
        self._trial: int | None = None
        self._turn = 0
        self._kind: object = None
        self._costs: deque[float] = deque(maxlen=_STEPS_COMPARED)
        self._trial_costs: list[float] = []
        self._usual: float | None = None
        self._interval_ns = _INTERVAL_NS_MIN
        self._next_trial_ns = 0

    @property
    def threads(self) -> int:
        """For the next step."""
        return self._counts[self._current if self._trial is None else self._trial]

    @property
    def settled(self) -> int:
        """The best number so far."""
        return self._counts[self._current]

    def observe(self, kind: object, cost: float, now_ns: int) -> None:
        """A step took ``cost``. Only steps of one ``kind`` are compared with each other."""
        if len(self._counts) == 1:
            return
        if kind != self._kind:
            self._kind, self._trial, self._usual = kind, None, None
            self._costs.clear()
            return
        if self._trial is None:
            self._watch(cost, now_ns)
        else:
            self._weigh(cost, now_ns)

    def _watch(self, cost: float, now_ns: int) -> None:
        self._costs.append(cost)
        if len(self._costs) < _STEPS_COMPARED:
            return
        mean = _mean(self._costs)
        usual = self._usual = mean if self._usual is None else self._usual
        self._usual += _USUAL_WEIGHT * (mean - usual)
        if mean > _SLOW * usual:
            self._next_trial_ns = min(self._next_trial_ns, now_ns)
            self._usual = mean
        if now_ns >= self._next_trial_ns:
            others = [at for at in range(len(self._counts)) if at != self._current]
            self._turn += 1
            self._trial = others[self._turn % len(others)]
            self._trial_costs = []

    def _weigh(self, cost: float, now_ns: int) -> None:
        self._trial_costs.append(cost)
        before = _mean(self._costs)
        hopeless = cost > _HOPELESS * before
        if len(self._trial_costs) < _STEPS_COMPARED and not hopeless:
            return
        if not hopeless and _mean(self._trial_costs) * 100 <= before * _GAIN_PERCENT:
            assert self._trial is not None
            self._current = self._trial
            self._interval_ns = _INTERVAL_NS_MIN
            self._usual = None
        else:
            self._interval_ns = min(_INTERVAL_NS_MAX, 2 * self._interval_ns)
        self._trial = None
        self._costs.clear()
        self._next_trial_ns = now_ns + self._interval_ns


def _mean(costs: Sequence[float] | deque[float]) -> float:
    return sum(costs) / len(costs)
