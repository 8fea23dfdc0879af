"""What happens to models, for whoever watches: the last of it, and all that comes."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from enum import StrEnum

import msgspec

from local_runtime.lifecycle.states import ModelState

KEPT_MAX = 256
UNREAD_MAX = 1024


class Happening(StrEnum):
    """What an event is about."""

    STATE = "state"  # it went to ``state``
    PROGRESS = "progress"  # of a load or a pull
    EVICTED = "evicted"  # it was told to leave, for another model's sake or since nobody used it
    CRASHED = "crashed"  # its engine died; ``message`` says what is known


class ModelEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a model. Numbers count from 1 since this process started."""

    number: int
    at_ms: int
    happening: Happening
    model: str
    state: ModelState
    progress: float
    memory_bytes: int = 0
    message: str = ""


class Events:
    """Everybody who watches gets everything, in order; who reads too slowly loses the oldest."""

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._number = 0
        self._last: deque[ModelEvent] = deque(maxlen=KEPT_MAX)
        self._watchers: set[_Watcher] = set()

    def tell(
        self,
        happening: Happening,
        model: str,
        state: ModelState,
        progress: float,
        *,
        memory_bytes: int = 0,
        message: str = "",
    ) -> None:
        """It happened now."""
        self._number += 1
        event = ModelEvent(
            number=self._number,
            at_ms=self._now_ms(),
            happening=happening,
            model=model,
            state=state,
            progress=progress,
            memory_bytes=memory_bytes,
            message=message,
        )
        self._last.append(event)
        for watcher in self._watchers:
            watcher.hear(event)

    async def since(self, number: int | None) -> AsyncGenerator[ModelEvent, None]:
        """What came after event ``number`` and is still known (None: nothing of the past), then
        what comes. Never ends by itself; closing it ends it.
        """
        watcher = _Watcher()
        if number is not None:
            for event in self._last:
                if event.number > number:
                    watcher.hear(event)
        self._watchers.add(watcher)
        try:
            while True:
                yield await watcher.next()
        finally:
            self._watchers.discard(watcher)


class _Watcher:
    def __init__(self) -> None:
        self._unread: deque[ModelEvent] = deque(maxlen=UNREAD_MAX)
        self._news = asyncio.Event()

    def hear(self, event: ModelEvent) -> None:
        self._unread.append(event)
        self._news.set()

    async def next(self) -> ModelEvent:
        while not self._unread:
            self._news.clear()
            await self._news.wait()
        return self._unread.popleft()
