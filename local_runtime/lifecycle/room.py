"""The one place where models get their memory: carries out what ``residency.py`` decides.

Runs in one event loop. Whoever has room keeps it until they give it back.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from local_runtime.lifecycle.residency import Residency, Want

_log = logging.getLogger(__name__)


class NoRoom(Exception):
    """The model can never be loaded here; the text says how many bytes it needs and there are."""


class NotNow(Exception):
    """The model would have to displace others, and was not to."""


class Room:
    """Memory for models. ``available_bytes`` is what the machine has free at the moment, where that
    is to count beside ``bytes_max``.
    """

    def __init__(
        self,
        bytes_max: int,
        available_bytes: Callable[[], int | None] = lambda: None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.evictions: Counter[str] = Counter()
        self._residency = Residency(bytes_max)
        self._available_bytes = available_bytes
        self._now_s = now_s
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._evict: dict[str, Callable[[], None]] = {}
        self._measured: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._planning = False
        self._again = False

    @property
    def bytes_max(self) -> int:
        """What all models together may hold."""
        return self._residency.bytes_max

    def bytes_of(self, model: str) -> int:
        """What it holds now; 0 when it is not in memory."""
        resident = self._residency.residents.get(model)
        return 0 if resident is None else resident.bytes

    def needs_of(self, model: str, guess: int) -> int:
        """What it takes: as measured, or as guessed if it was never loaded."""
        return self._measured.get(model, guess)

    def why_it_waits(self, model: str, needs_bytes: int) -> str:
        """In words for callers: what a model that has no room yet waits for."""
        others = any(name != model for name in self._residency.residents)
        available = self._available_bytes()
        if others or available is None or needs_bytes <= available:
            return "waits for memory that other models hold while they answer"
        return (
            f"waits for memory: it needs about {needs_bytes >> 20} MiB, and this machine has"
            f" {available >> 20} MiB to give, which other programs have to leave first"
        )

    def want(self, want: Want, evict: Callable[[], None]) -> asyncio.Future[None]:
        """Ask for room; the future is done once it is there, often at once.

        It fails with NoRoom or NotNow. ``evict`` is called at most once, later, when the model has
        to leave: it must come to ``give_back`` as soon as the calls on it have ended. ``give_back``
        also withdraws what has not been granted.
        """
        want = msgspec.structs.replace(want, bytes=self.needs_of(want.model, want.bytes))
        granted = asyncio.get_running_loop().create_future()
        self._waiting[want.model] = granted
        self._evict[want.model] = evict
        self._residency.want(want)
        self._plan()
        return granted

    def give_back(self, model: str) -> None:
        """It is gone from memory, or does not want to get there any more."""
        self._residency.give_back(model)
        self._evict.pop(model, None)
        waiting = self._waiting.pop(model, None)
        if waiting is not None:
            waiting.cancel()
        self._plan()

    def warm(self, model: str, memory_bytes: int, load_s: float) -> None:
        """It is loaded: what it was found to take (0: not known), and how long loading took."""
        if memory_bytes:
            self._measured[model] = memory_bytes
        self._residency.warm(model, memory_bytes, load_s, self._now_s())
        self._plan()

    def reloading(self, model: str) -> None:
        """Its engine died and is being started again: it keeps its room."""
        self._residency.reloading(model)

    def leaving(self, model: str) -> None:
        """It is on its way out for reasons of its own."""
        self._residency.leaving(model)
        self._plan()

    def enter(self, model: str) -> None:
        """A call runs on it from now on."""
        self._residency.enter(model, self._now_s())

    def leave(self, model: str) -> None:
        """A call has ended on it."""
        self._residency.leave(model, self._now_s())
        self._plan()

    def close(self) -> None:
        """Plan nothing any more."""
        self._planning = True
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self) -> None:
        """Ask what is to be done, and do it; what that brings about is planned after it."""
        self._again = True
        if self._planning:
            return
        self._planning = True
        try:
            while self._again:
                self._again = False
                self._carry_out()
        finally:
            self._planning = False

    def _carry_out(self) -> None:
        now_s = self._now_s()
        available = self._available_bytes() if self._residency.wants else None
        plan = self._residency.plan(now_s, available)
        for model in plan.granted:
            self._answer(model, None)
        for model, reason in plan.hopeless.items():
            self._answer(model, NoRoom(f"{model} cannot be loaded: {reason}."))
        for model in plan.skipped:
            self._answer(model, NotNow(f"{model} is left for later: no room without displacing."))
        for model in plan.leave:
            self.evictions[model] += 1
            _log.info("%s has to leave the memory", model)
            self._evict[model]()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if plan.again_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.01, plan.again_s - now_s), self._plan)

    def _answer(self, model: str, refusal: Exception | None) -> None:
        waiting = self._waiting.pop(model)
        if waiting.done():
            return
        if refusal is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(refusal)
