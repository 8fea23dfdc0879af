"""Signals that ask a running server for something."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

from app.errors import TurnpikeError

log = logging.getLogger("turnpike.serve")


def on_signal(name: str, work: Callable[[], Awaitable[object]], failed: str) -> None:
    """Have the event loop do ``work`` whenever the signal comes, where the system has it. A
    TurnpikeError is logged behind the words ``failed``."""
    running: set[asyncio.Task[None]] = set()

    async def attempt() -> None:
        try:
            await work()
        except TurnpikeError as error:
            log.error("%s: %s", failed, error.message)

    def begin() -> None:
        task = asyncio.create_task(attempt())
        running.add(task)
        task.add_done_callback(running.discard)

    if hasattr(signal, name):
        asyncio.get_running_loop().add_signal_handler(getattr(signal, name), begin)
