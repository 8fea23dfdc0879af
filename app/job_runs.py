"""When each periodic job last ended well, for the metrics: a scheduler that stopped is silent."""

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple


class JobRun(NamedTuple):
    """One job. ``late_s``: how much longer ago than its interval it last ended well, or, before the
    first time, was begun to be waited for.
    """

    name: str
    late_s: float
    failures: int


class JobRuns:
    """All of them. Goes by the monotonic clock, so a time of day that jumps makes nothing late."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._every_s: dict[str, float] = {}
        self._well_ns: dict[str, int] = {}
        self._failures: dict[str, int] = {}

    def expect(self, name: str, every_s: float) -> None:
        """It is to run so often from now on."""
        self._every_s[name] = every_s
        self._well_ns[name] = self._monotonic_ns()
        self._failures.setdefault(name, 0)

    def ran(self, name: str) -> None:
        """It ended well."""
        self._well_ns[name] = self._monotonic_ns()

    def failed(self, name: str) -> None:
        """It raised."""
        self._failures[name] += 1

    def watched(
        self, name: str, every_s: float, run: Callable[[], Awaitable[Any]]
    ) -> Callable[[], Awaitable[None]]:
        """``run``, with its end written down; what it raises goes on."""
        self.expect(name, every_s)

        async def watched() -> None:
            try:
                await run()
            except Exception:
                self.failed(name)
                raise
            self.ran(name)

        return watched

    def __iter__(self) -> Iterator[JobRun]:
        now_ns = self._monotonic_ns()
        for name, every_s in self._every_s.items():
            late_s = (now_ns - self._well_ns[name]) / 1e9 - every_s
            yield JobRun(name, max(0.0, late_s), self._failures[name])
