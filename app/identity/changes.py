"""Notice of committed changes, so that no cache outlives the row it was made from."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Changes:
    """Whom to tell when a row has changed.

    A write goes on when the task that awaits it is cancelled (a client that left, say), and the
    notice has to follow it all the same: otherwise a revoked key would live on in the cache. So
    write and notice run in a task of their own.
    """

    def __init__(self) -> None:
        self._watchers: list[Callable[[str], None]] = []
        self._running: set[asyncio.Task[Any]] = set()

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call ``watcher`` with the id of every row whose change has been committed."""
        self._watchers.append(watcher)

    async def follow(self, write: Coroutine[Any, Any, T], subject: Callable[[T], str]) -> T:
        """Await ``write``, then tell the watchers of ``subject(its result)``."""
        task = asyncio.create_task(self._follow(write, subject))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _follow(self, write: Coroutine[Any, Any, T], subject: Callable[[T], str]) -> T:
        result = await write
        for watcher in self._watchers:
            watcher(subject(result))
        return result
