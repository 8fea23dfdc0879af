"""The engine in a thread of this process: nothing to start, but its crash is ours."""

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from local_runtime.engines.contract import EngineInfo, EngineSpec
from local_runtime.placement.drive import drive
from local_runtime.placement.frames import Load, Quit, ToEngine
from local_runtime.placement.reports import ReportedHost
from local_runtime.placement.runnable import runnable

_log = logging.getLogger(__name__)


class InlineHost(ReportedHost):
    """A ``Host``; see ``contract.py``."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
        super().__init__(self._inbox.put)

    async def start(self, progress: Callable[[float], None]) -> EngineInfo:
        self._spec = await runnable(self._spec)
        self._loop = asyncio.get_running_loop()
        self._begin(progress, os.getpid())
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        self._inbox.put(Load(self._spec))
        return await asyncio.shield(self._loaded)

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
