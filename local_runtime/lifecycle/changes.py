"""Waiting for something to change, and for something to be done whole."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress


class Changes:
    """Whoever waits looks again after each change; there is no state in it."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def tell(self) -> None:
        """Wake everybody who waits."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def next(self, stop: asyncio.Event | None) -> None:
        """Until the next change, or until ``stop`` is set."""
        if stop is None:
            await self._changed.wait()
            return
        waits = [
            asyncio.ensure_future(self._changed.wait()),
            asyncio.ensure_future(stop.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each


async def whole(work: Coroutine[None, None, None]) -> None:
    """Await it to its end, also when this task is cancelled meanwhile; then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
