"""Counts of measured values by upper bounds, as Prometheus wants them. Cheap enough for hot paths;
no lock: one thread adds, others only read.
"""

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """How many values lay within each of the rising ``bounds``, and in the last place beyond.

    Not cumulative; ``total`` is the sum of all values, in the unit of the bounds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def add(self, value: int) -> None:
        """Count one value."""
        self.total += value
        self.counts[bisect_left(self.bounds, value)] += 1
