"""The half of a host that every placement shares: what the engine reports, and who hears of it.

Everything here runs in the host's event loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from local_runtime.engines.contract import EngineEvent, EngineInfo, EngineLoadError, EngineRequest
from local_runtime.placement.contract import HostDied, HostStats
from local_runtime.placement.frames import (
    Cancel,
    FromEngine,
    Loaded,
    LoadFailed,
    Progress,
    Stepped,
    Submit,
    ToEngine,
)
from local_runtime.placement.streams import STOPPED, Streams


class ReportedHost:
    """A ``Host`` but for how the engine is started, spoken to and ended; see ``contract.py``."""

    def __init__(self, send: Callable[[ToEngine], None]) -> None:
        """``send`` speaks to the engine and does not block."""
        self._send = send
        self._streams = Streams(
            lambda request: send(Submit(request)), lambda request_id: send(Cancel(request_id))
        )
        self._pid: int | None = None
        self._stepped = Stepped([], 0, 0)  # the last
        self._closing = False
        self._signs = 0  # of life

    @property
    def stats(self) -> HostStats:
        last = self._stepped
        return HostStats(
            busy_ns=last.busy_ns,
            unbilled_ns=last.unbilled_ns,
            occupancy=last.occupancy,
            pid=self._pid,
        )

    @property
    def alive(self) -> bool:
        return self._streams.open

    def submit(self, request: EngineRequest) -> AsyncGenerator[list[EngineEvent], None]:
        return self._streams.events(request)

    def cancel(self, request_id: str) -> None:
        self._send(Cancel(request_id))

    def expire(self, request_id: str) -> None:
        self._streams.expire(request_id)

    async def died(self) -> str:
        return await asyncio.shield(self._death)

    def _begin(self, progress: Callable[[float], None], pid: int) -> None:
        """The engine starts, in the process ``pid``."""
        loop = asyncio.get_running_loop()
        self._progress = progress
        self._loaded: asyncio.Future[EngineInfo] = loop.create_future()
        self._death: asyncio.Future[str] = loop.create_future()
        self._pid = pid

    def _take(self, message: FromEngine) -> None:
        """One report of the engine."""
        self._signs += 1
        if isinstance(message, Stepped):
            self._stepped = message
            self._streams.dispatch(message.events)
        elif isinstance(message, Progress):
            self._progress(message.fraction)
        elif self._loaded.done():
            return
        elif isinstance(message, Loaded):
            self._loaded.set_result(message.info)
        elif isinstance(message, LoadFailed):
            self._loaded.set_exception(EngineLoadError(message.message))

    def _over(self, reason: str, told: str = STOPPED) -> None:
        """The engine is gone; ``told`` is what callers may know."""
        if self._closing:
            self._loaded.cancel()  # nobody waits for it any more
        elif not self._loaded.done():
            self._loaded.set_exception(HostDied(reason))
        self._streams.end(reason, told)
        if not self._closing and not self._death.done():
            self._death.set_result(reason)
