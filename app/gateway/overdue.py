"""Ends attempts that go on past their time, with one timer for all of them.

An adapter bounds itself; this is for one that does not. A timer of its own would cost each call as
much as its whole plan does, so the running attempts are looked at once a second.
"""

import asyncio

LOOK_EVERY_S = 1.0


class Overdue:
    """The attempts that run, by their task, and until when each may."""

    def __init__(self) -> None:
        self._due: dict[asyncio.Task[object], float] = {}
        self._ended: set[asyncio.Task[object]] = set()
        self._looking: asyncio.TimerHandle | None = None

    def watch(self, task: "asyncio.Task[object]", until: float) -> None:
        """Cancel the task soon after ``until``, in the loop's time, unless ``forget`` comes first;
        called again, it moves the time."""
        self._due[task] = until
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.call_later(LOOK_EVERY_S, self._look, loop)

    def forget(self, task: "asyncio.Task[object]") -> bool:
        """Whether the task was cancelled for its time; it is no longer watched."""
        self._due.pop(task, None)
        if task in self._ended:
            self._ended.discard(task)
            return True
        return False

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, until in self._due.items() if until <= now]:
            del self._due[task]
            self._ended.add(task)
            task.cancel()
        self._looking = loop.call_later(LOOK_EVERY_S, self._look, loop) if self._due else None
