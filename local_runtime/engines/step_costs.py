"""What steps cost: of each kind, with one number of threads. Pure. Times are nanoseconds.

Steps compare only with others of their kind: a number of answers that generate, or a word.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from statistics import median

Kind = int | str | None

_STEPS_KNOWN = 5
# A step that takes so many times the usual counts once more for each of these: to wait for more of
# them is dear, and so long a step was no hiccup.
_FAR_OFF = 2
_FAR_OFF_NS = 200_000_000
_USUAL_NS = 5_000_000_000  # what is usual is an average over about so long
_FRESH_NS = 2_000_000_000
_KINDS_MAX = 32


@dataclass(slots=True)
class StepCost:
    """Of one kind of steps: the latest few, and the ``usual``."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_STEPS_KNOWN))
    usual: float = 0.0
    wall_ns: int = 0  # of the latest
    _steps: int = 0
    _stale_ns: int = 0  # when ``recent`` will no longer say how things are

    def add(self, cost: float, wall_ns: int, now_ns: int) -> None:
        """Of a step that ended now."""
        if now_ns - wall_ns > self._stale_ns:
            self.recent.clear()
        far_off = cost > _FAR_OFF * self.usual  # as is the first one
        times = 1 + wall_ns // _FAR_OFF_NS if far_off else 1
        self.recent.extend([cost] * min(times, _STEPS_KNOWN))
        self._steps += 1
        weight = max(1 / self._steps, min(0.1, wall_ns / _USUAL_NS))
        self.usual += weight * (cost - self.usual)
        self.wall_ns, self._stale_ns = wall_ns, now_ns + wall_ns + _FRESH_NS

    def fresh(self, now_ns: int) -> bool:
        """Whether ``now`` is how things are."""
        return len(self.recent) == _STEPS_KNOWN and now_ns <= self._stale_ns

    @property
    def now(self) -> float:
        """The median: one step that was held up is no sign of anything."""
        return median(self.recent)


class StepCosts:
    """Of the kinds seen last, as many as there is room for."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Kind, StepCost] = OrderedDict()

    def get(self, kind: Kind) -> StepCost | None:
        """None: nothing recent is known."""
        found = self._kinds.get(kind)
        return found if found is not None and found.recent else None

    def of(self, kind: Kind) -> StepCost:
        """To add to."""
        found = self._kinds.setdefault(kind, StepCost())
        self._kinds.move_to_end(kind)
        if len(self._kinds) > _KINDS_MAX:
            self._kinds.popitem(last=False)
        return found

    def forget_recent(self) -> None:
        """All but the usual."""
        for each in self._kinds.values():
            each.recent.clear()
