"""How many second tries the appliance allows itself: so that providers that fail under load are not
sent a multiple of it.

Three retries may always run at a time. Beyond those, retries may be a fifth of the first tries of
the last 10 s. Failovers count, as they are load for somebody too. Before a retry comes a pause of
random length (full jitter), 25 ms at most before the first and twice that before the second.
"""

import random
from collections import deque

from app.clock import Clock

SHARE_MAX = 0.2
AT_ONCE_MIN = 3
WINDOW_SECONDS = 10
PAUSE_SECONDS = 0.025
_SECOND_NS = 10**9


class RetryBudget:
    """One for the whole appliance. A call counts when it starts; a retry asks first, and says when
    it has ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seconds: deque[list[int]] = deque()  # [second, first tries, retries]
        self._firsts = 0
        self._retries = 0
        self._running = 0

    def started(self) -> None:
        """A call makes its first try."""
        self._now()[1] += 1
        self._firsts += 1

    def take(self) -> bool:
        """Whether a retry may be made; then it is counted, and runs until ``ended``."""
        now = self._now()
        if self._running >= AT_ONCE_MIN and self._retries >= SHARE_MAX * self._firsts:
            return False
        now[2] += 1
        self._retries += 1
        self._running += 1
        return True

    def ended(self) -> None:
        """A retry that was taken is over."""
        self._running -= 1

    @staticmethod
    def pause_s(retry: int) -> float:
        """Seconds to wait before a call's first, second … retry."""
        return random.uniform(0, PAUSE_SECONDS * 2 ** (retry - 1))  # noqa: S311 (no secret)

    def _now(self) -> list[int]:
        """The bucket of this second; those that are too old are forgotten."""
        second, seconds = self._clock.monotonic_ns() // _SECOND_NS, self._seconds
        if not seconds or seconds[-1][0] != second:
            seconds.append([second, 0, 0])
            while seconds[0][0] <= second - WINDOW_SECONDS:
                _, firsts, retries = seconds.popleft()
                self._firsts -= firsts
                self._retries -= retries
        return seconds[-1]
