"""The engine in a thread of this process: nothing to start, but its crash is ours."""

import asyncio
import logging
import os
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Any

from local_runtime.engines.contract import (
    EngineEvent,
    EngineInfo,
    EngineLoadError,
    EngineRequest,
    EngineSpec,
)
from local_runtime.placement.contract import HostDied, HostStats
from local_runtime.placement.drive import drive
from local_runtime.placement.frames import (
    Cancel,
    FromEngine,
    Load,
    Loaded,
    LoadFailed,
    Progress,
    Quit,
    Stepped,
    Submit,
    ToEngine,
)
from local_runtime.placement.streams import Streams

_log = logging.getLogger(__name__)


class InlineHost:
    """A ``Host``; see ``contract.py``."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        self._streams = Streams(
            lambda request: self._inbox.put(Submit(request)),
            lambda request_id: self._inbox.put(Cancel(request_id)),
        )
        self._stats = HostStats(pid=os.getpid())
        self._closing = False

    @property
    def stats(self) -> HostStats:
        return self._stats

    @property
    def alive(self) -> bool:
        return self._streams.open

    async def start(self, progress: Callable[[float], None]) -> EngineInfo:
        self._loop = asyncio.get_running_loop()
        self._progress = progress
        self._loaded: asyncio.Future[EngineInfo] = self._loop.create_future()
        self._death: asyncio.Future[str] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        self._inbox.put(Load(self._spec))
        return await asyncio.shield(self._loaded)

    def submit(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        return self._streams.events(request)

    def cancel(self, request_id: str) -> None:
        self._inbox.put(Cancel(request_id))

    async def died(self) -> str:
        return await asyncio.shield(self._death)

    async def close(self) -> None:
        """Waits for the step that is under way; a thread cannot be stopped from outside."""
        self._closing = True
        self._inbox.put(Quit())
        self._streams.end("the engine was closed")
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        """The engine's thread."""
        reason = "the engine ended"
        try:
            drive(self._inbox, lambda message: self._post(self._take, message))
        except Exception as error:  # noqa: BLE001  # whatever it is, this engine is broken
            _log.exception("the engine of %s broke", self._spec.path or self._spec.engine)
            reason = f"{type(error).__name__}: {error}"
        self._post(self._over, reason)

    def _post(self, function: Callable[[Any], None], value: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, value)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            return

    def _take(self, message: FromEngine) -> None:
        if isinstance(message, Stepped):
            self._stats = HostStats(
                busy_ns=message.busy_ns, unbilled_ns=message.unbilled_ns, pid=os.getpid()
            )
            self._streams.dispatch(message.events)
        elif isinstance(message, Progress):
            self._progress(message.fraction)
        elif self._loaded.done():
            return
        elif isinstance(message, Loaded):
            self._loaded.set_result(message.info)
        elif isinstance(message, LoadFailed):
            self._loaded.set_exception(EngineLoadError(message.message))

    def _over(self, reason: str) -> None:
        if self._closing:
            self._loaded.cancel()  # nobody waits for it any more
        elif not self._loaded.done():
            self._loaded.set_exception(HostDied(reason))
        self._streams.end(reason)
        if not self._closing and not self._death.done():
            self._death.set_result(reason)
