"""Keeps one model's engine alive: loads it, restarts it after a crash, gives up in time.

One task owns the model's state; everybody else asks it for a change and waits to be told.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine

from local_runtime.engines.contract import EngineInfo, EngineLoadError
from local_runtime.lifecycle.restarts import QUARANTINE_CRASHES, QUARANTINE_WINDOW_S, Restarts
from local_runtime.lifecycle.states import ModelState, moved
from local_runtime.placement.contract import Host, HostDied, HostStats
from plugins.contract import AdapterError, FailureKind

_log = logging.getLogger(__name__)

RETRY_AFTER_S_MAX = 60.0
DRAIN_SECONDS_MAX = 600.0


class Supervisor:
    """One model's life. ``make_host`` gives a fresh host each time."""

    def __init__(
        self,
        model: str,
        make_host: Callable[[], Host],
        *,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.state = ModelState.COLD
        self.progress = 0.0
        self.error: str | None = None
        self.info: EngineInfo | None = None
        self.restarts = Restarts()
        self._make_host = make_host
        self._now_s = now_s
        self._host: Host | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._running = 0
        self._loading_since_s = 0.0
        self._before = HostStats()  # clocks of the engines that are gone
        self._watchers: list[Callable[[float], None]] = []
        self._closed = False

    @property
    def stats(self) -> HostStats:
        """Busy time over all lives; ``pid`` of the present one."""
        now = self._host.stats if self._host is not None else HostStats()
        return HostStats(
            busy_ns=self._before.busy_ns + now.busy_ns,
            unbilled_ns=self._before.unbilled_ns + now.unbilled_ns,
            pid=now.pid,
        )

    def begin_loading(self) -> None:
        """Start loading unless it is loaded or on its way; returns at once."""
        if self.state in {ModelState.COLD, ModelState.FAILED} and not self._closed:
            self.error = None
            self._move(ModelState.LOADING)
            self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.model}")

    async def load(self, progress: Callable[[float], None] = lambda _fraction: None) -> None:
        """Load and wait until that is done, also after a failure. Raises AdapterError."""
        self.restarts.forgive()
        self.begin_loading()
        self._watchers.append(progress)
        try:
            await self.ready(None)
        finally:
            self._watchers.remove(progress)

    async def ready(self, timeout_s: float | None) -> Host:
        """The warm engine's host; loads a cold model. Raises AdapterError: loading, crashed."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if self._closed:
                        raise AdapterError(FailureKind.OVERLOADED, "the server is stopping")
                    host = self._host
                    if self.state is ModelState.WARM and host is not None and host.alive:
                        return host
                    if self.state is ModelState.FAILED:
                        raise AdapterError(
                            FailureKind.CRASHED,
                            f"{self.model} is out of service on this machine.",
                            detail=self.error or "",
                        )
                    self.begin_loading()
                    await self._changed.wait()
        except TimeoutError:
            raise AdapterError(
                FailureKind.LOADING,
                f"{self.model} is still being loaded ({self.progress:.0%}).",
                retry_after_s=self.retry_after_s(),
            ) from None

    def retry_after_s(self) -> float:
        """A guess of the seconds until it is warm."""
        elapsed_s = self._now_s() - self._loading_since_s
        left_s = elapsed_s * (1 - self.progress) / max(self.progress, 0.05)
        return min(RETRY_AFTER_S_MAX, max(1.0, left_s))

    def enter(self) -> None:
        """A call runs on the engine from now until ``leave``; draining waits for it."""
        self._running += 1

    def leave(self) -> None:
        self._running -= 1
        self._tell()

    async def unload(self) -> None:
        """Let running calls end, then free the engine. A cold model stays as it is."""
        if self.state is ModelState.WARM:
            self._move(ModelState.DRAINING)
            try:
                async with asyncio.timeout(DRAIN_SECONDS_MAX):
                    while self._running and self._host is not None:
                        await self._changed.wait()
            except TimeoutError:
                _log.warning("%s: calls still run after %s s", self.model, DRAIN_SECONDS_MAX)
        await self._stop_keeper()
        if self.state is not ModelState.COLD:
            self._move(ModelState.COLD)

    async def close(self) -> None:
        """End the engine now; calls that run on it fail."""
        self._closed = True
        await self._stop_keeper()
        self._tell()

    async def _stop_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self) -> None:
        """Load, wait for death, load again."""
        while True:
            self.progress = 0.0
            self._loading_since_s = self._now_s()
            try:
                reason = await self._live()
            except EngineLoadError as error:
                self._fail(str(error))
                return
            delay_s = self.restarts.crashed(self._now_s())
            if delay_s is None:
                self._fail(
                    f"its engine crashed {QUARANTINE_CRASHES} times within "
                    f"{QUARANTINE_WINDOW_S / 60:.0f} minutes; the last time {reason}"
                )
                return
            _log.warning("%s: the engine died (%s); new start in %s s", self.model, reason, delay_s)
            await asyncio.sleep(delay_s)

    async def _live(self) -> str:
        """One engine's life: why it died. Raises EngineLoadError when it could not be loaded."""
        host = self._host = self._make_host()
        try:
            try:
                self.info = await host.start(self._on_progress)
            except OSError as error:
                return f"its process cannot be started: {error}"
            except HostDied as error:
                return str(error)
            self._on_progress(1.0)
            self._move(ModelState.WARM)
            _log.info("%s: warm after %d ms", self.model, self.info.load_ms)
            reason = await host.died()
            if self.state is ModelState.WARM:
                self._move(ModelState.LOADING)
            return reason
        finally:
            await _whole(host.close())
            self._before = self.stats
            self._host = None

    def _fail(self, reason: str) -> None:
        self.error = reason
        _log.error("%s: out of service: %s", self.model, reason)
        self._move(ModelState.FAILED)

    def _on_progress(self, fraction: float) -> None:
        self.progress = fraction
        for watcher in self._watchers:
            watcher(fraction)

    def _move(self, state: ModelState) -> None:
        self.state = moved(self.state, state)
        self._tell()

    def _tell(self) -> None:
        """Wake everybody who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()


async def _whole(work: Coroutine[None, None, None]) -> None:
    """Await it to its end, also when this task is cancelled meanwhile; then be cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
