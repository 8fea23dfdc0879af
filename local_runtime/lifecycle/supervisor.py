"""Keeps one model's engine alive: finds it room, loads it, restarts it after a crash, gives up in
time, and lets it go once its calls have ended.

One task owns the model's state; everybody else asks it for a change and waits to be told.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from local_runtime.engines.contract import EngineInfo, EngineLoadError
from local_runtime.lifecycle.changes import Changes, whole
from local_runtime.lifecycle.events import Events, Happening
from local_runtime.lifecycle.load_times import LoadTimes
from local_runtime.lifecycle.needs import Loads, Needs
from local_runtime.lifecycle.residency import Want
from local_runtime.lifecycle.restarts import QUARANTINE_CRASHES, QUARANTINE_WINDOW_S, Restarts
from local_runtime.lifecycle.room import NoRoom, NotNow, Room
from local_runtime.lifecycle.states import ModelState, moved
from local_runtime.placement.contract import Host, HostDied, HostStats
from plugins.contract import AdapterError, FailureKind

_log = logging.getLogger(__name__)

RETRY_AFTER_S_MAX = 600.0
NO_ROOM_RETRY_S = 60.0
DRAIN_SECONDS_MAX = 660.0  # a little more than a call may take


class Supervisor:
    """One model's life. ``make_host`` gives a fresh host each time."""

    def __init__(
        self,
        model: str,
        make_host: Callable[[], Awaitable[Host]],
        room: Room,
        *,
        needs: Needs = Needs(),  # noqa: B008  # frozen
        events: Events | None = None,
        load_times: LoadTimes | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.state = ModelState.COLD
        self.progress = 0.0
        self.error: str | None = None
        self.info: EngineInfo | None = None
        self.restarts = Restarts()
        self.loads = Loads()
        self.needs = needs
        self.running = 0
        self.waiting = 0
        self._make_host = make_host
        self._room = room
        self._events = events or Events()
        self._load_times = load_times or LoadTimes()
        self._now_s = now_s
        self._host: Host | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._drainer: asyncio.Task[None] | None = None
        self._changes = Changes()
        self._loading_since_s = 0.0
        self._used_s: float | None = None
        self._before = HostStats()  # clocks of the engines that are gone
        self._watchers: list[Callable[[float], None]] = []
        self._no_room = False
        self._asked = False  # by somebody who does not wait for it
        self._closed = False

    @property
    def stats(self) -> HostStats:
        """Busy time over all lives; ``pid`` of the present one."""
        now = self._host.stats if self._host is not None else HostStats()
        return HostStats(
            busy_ns=self._before.busy_ns + now.busy_ns,
            unbilled_ns=self._before.unbilled_ns + now.unbilled_ns,
            occupancy=now.occupancy,
            pid=now.pid,
        )

    @property
    def waits_for_room(self) -> bool:
        """It is to be loaded, and others are in the way."""
        return self._keeper is not None and self.state is ModelState.COLD

    @property
    def memory_bytes(self) -> int:
        """What it holds now; 0 while it is cold."""
        return self._room.bytes_of(self.model)

    @property
    def idle_s(self) -> float | None:
        """Seconds since its last call ended, 0 while one runs; None before the first."""
        if self.running:
            return 0.0
        return None if self._used_s is None else self._now_s() - self._used_s

    @property
    def needs_bytes(self) -> int:
        """What it takes in memory: measured, or a guess before it was loaded once."""
        return self._room.needs_of(self.model, self.needs.memory_bytes)

    @property
    def evictions(self) -> int:
        """How often it was made to leave."""
        return self._room.evictions[self.model]

    def begin_loading(self, *, may_displace: bool = True, asked: bool = True) -> None:
        """Start loading unless it is loaded or on its way; returns at once.

        ``asked`` by somebody who does not wait for it: it is loaded whoever gives up meanwhile.
        """
        self._asked = self._asked or asked
        if self._closed or self._keeper is not None:
            return
        if self.state not in {ModelState.COLD, ModelState.FAILED}:
            return
        if self.state is ModelState.FAILED:
            self._move(ModelState.COLD)
        self.error = None
        self._no_room = False
        granted = self._room.want(
            Want(
                model=self.model,
                bytes=self.needs.memory_bytes,
                kept=self.needs.keep,
                keep_alive_s=self.needs.keep_alive_s,
                may_displace=may_displace,
            ),
            self._evict,
        )
        self._loading_since_s = self._now_s()
        self.progress = 0.0
        if granted.done() and granted.exception() is None:
            self._move(ModelState.LOADING)
        self._keeper = asyncio.create_task(self._keep(granted), name=f"keep {self.model}")

    def ask_for(self) -> None:
        """Load it, also after a failure: a person asked for another try."""
        self.restarts.forgive()
        self.begin_loading()

    async def load(self, progress: Callable[[float], None] = lambda _fraction: None) -> None:
        """Load and wait until that is done, also after a failure. Raises AdapterError."""
        self.ask_for()
        self._watchers.append(progress)
        try:
            await self._ready(None, None)
        finally:
            self._watchers.remove(progress)

    async def enter(
        self, wait_s: float | None, *, may_wait: bool = True, stop: asyncio.Event | None = None
    ) -> Host | None:
        """The warm engine's host for one call, which it stays for until ``leave``.

        Loads a cold model, and waits for that for at most ``wait_s``; without ``may_wait`` not at
        all. None when ``stop`` came first; then nothing is to be left. Raises AdapterError:
        loading, crashed.
        """
        host = self._open_host()
        if host is None:
            if not may_wait:
                self.begin_loading()
                raise self._not_ready()
            host = await self._ready(wait_s, stop)
        if host is not None:
            # Nothing is awaited between finding it open and this: nobody told it to leave.
            self.running += 1
            self._room.enter(self.model)
        return host

    def leave(self) -> None:
        """A call has ended."""
        self.running -= 1
        self._used_s = self._now_s()
        self._room.leave(self.model)
        self._changes.tell()

    def estimate_s(self) -> float:
        """A guess of the seconds until it is warm; 0 when it is."""
        if self.state is ModelState.WARM:
            return 0.0
        size, times = self.needs.size_bytes, self._load_times
        if self.state is ModelState.LOADING:
            elapsed_s = self._now_s() - self._loading_since_s
            return times.left_s(self.model, size, elapsed_s, self.progress)
        return times.estimate_s(self.model, size)

    async def unload(self) -> None:
        """Let running calls end, then free the engine. A cold model stays as it is."""
        await asyncio.shield(self.begin_unloading())

    async def close(self) -> None:
        """End the engine now; calls that run on it fail."""
        self._closed = True
        if self._drainer is not None:
            self._drainer.cancel()
            await asyncio.gather(self._drainer, return_exceptions=True)
        await self._stop_keeper()
        self._changes.tell()

    async def _ready(self, wait_s: float | None, stop: asyncio.Event | None) -> Host | None:
        """As ``enter``, but the host may be gone as soon as anything else is awaited."""
        self.waiting += 1
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    host = self._open_host()
                    if host is not None:
                        return host
                    if stop is not None and stop.is_set():
                        return None
                    self.begin_loading(asked=False)
                    await self._changes.next(stop)
        except TimeoutError:
            raise self._not_ready() from None
        finally:
            self.waiting -= 1
            if not self.waiting and not self._asked and self.waits_for_room:
                self._give_up_waiting()

    def _open_host(self) -> Host | None:
        """The host, if calls may go to it now. Raises AdapterError when that will not happen."""
        if self._closed:
            raise AdapterError(FailureKind.OVERLOADED, "the server is stopping")
        if self.state is ModelState.FAILED:
            if self._no_room:
                raise AdapterError(
                    FailureKind.LOADING, self.error or "", retry_after_s=NO_ROOM_RETRY_S
                )
            raise AdapterError(
                FailureKind.CRASHED,
                f"{self.model} is out of service on this machine.",
                detail=self.error or "",
            )
        host = self._host
        is_open = self.state is ModelState.WARM and host is not None and host.alive
        return host if is_open else None

    def _not_ready(self) -> AdapterError:
        doing = f"is being loaded ({self.progress:.0%})"
        if self.waits_for_room or self.state is ModelState.DRAINING:
            doing = self._room.why_it_waits(self.model, self.needs_bytes)
        seconds = min(RETRY_AFTER_S_MAX, max(1.0, self.estimate_s()))
        return AdapterError(
            FailureKind.LOADING,
            f"{self.model} {doing}; that takes about {seconds:.0f} s.",
            retry_after_s=seconds,
        )

    def _evict(self) -> None:
        """The room is needed, or nobody used it for long."""
        self._say(Happening.EVICTED)
        self.begin_unloading()

    def begin_unloading(self) -> "asyncio.Task[None]":
        """From here on no call is let in; the task ends when it is gone."""
        if self._drainer is None:
            if self.state is ModelState.WARM:
                self._move(ModelState.DRAINING)
                self._room.leaving(self.model)
            self._drainer = asyncio.create_task(self._drain(), name=f"drain {self.model}")
        return self._drainer

    async def _drain(self) -> None:
        try:
            try:
                async with asyncio.timeout(DRAIN_SECONDS_MAX):
                    while self.running and self.state is ModelState.DRAINING:
                        await self._changes.next(None)
            except TimeoutError:
                _log.warning("%s: calls still run after %s s", self.model, DRAIN_SECONDS_MAX)
            await self._stop_keeper()
        finally:
            self._drainer = None
            self._asked = False
            if self.state is not ModelState.COLD and not self._closed:
                self._move(ModelState.COLD)
            self._room.give_back(self.model)

    def _give_up_waiting(self) -> None:
        """Nobody waits for the room it asked for any more."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
        self._room.give_back(self.model)

    async def _stop_keeper(self) -> None:
        keeper = self._keeper
        if keeper is not None:
            keeper.cancel()
            await self._settle_keeper()

    async def _settle_keeper(self) -> None:
        """Wait until it has cleaned up behind itself."""
        keeper = self._keeper
        if keeper is not None:
            await asyncio.gather(keeper, return_exceptions=True)
            if self._keeper is keeper:  # it was ended before it had begun
                self._keeper = None
                self._room.give_back(self.model)

    async def _keep(self, granted: "asyncio.Future[None]") -> None:
        """Wait for room, load, wait for death, load again."""
        try:
            await granted
            if self.state is ModelState.COLD:
                self._move(ModelState.LOADING)
            while (reason := await self._live()) and self.state is not ModelState.DRAINING:
                await self._before_restart(reason)
        except NotNow as refusal:
            _log.info("%s", refusal)
        except NoRoom as refusal:
            self._no_room = True
            self._fail(str(refusal))
        except EngineLoadError as error:
            self._fail(str(error))
        finally:
            if asyncio.current_task() is self._keeper:
                self._keeper = None
                self._asked = False
                if self._drainer is None:
                    self._room.give_back(self.model)
                self._changes.tell()

    async def _before_restart(self, reason: str) -> None:
        """Wait as long as the crashes ask for. Raises EngineLoadError when they were too many."""
        self._say(Happening.CRASHED, reason)
        delay_s = self.restarts.crashed(self._now_s())
        if delay_s is None:
            raise EngineLoadError(
                f"its engine crashed {QUARANTINE_CRASHES} times within "
                f"{QUARANTINE_WINDOW_S / 60:.0f} minutes; the last time {reason}"
            )
        _log.warning("%s: the engine died (%s); new start in %s s", self.model, reason, delay_s)
        await asyncio.sleep(delay_s)

    async def _live(self) -> str:
        """One engine's life: why it died. Raises EngineLoadError when it could not be loaded."""
        self.progress = 0.0
        begun_s = self._loading_since_s = self._now_s()
        try:
            host = self._host = await self._make_host()
        except OSError as error:
            return f"its process cannot be prepared: {error}"
        try:
            try:
                self.info = await host.start(self._on_progress)
            except OSError as error:
                return f"its process cannot be started: {error}"
            except HostDied as error:
                return str(error)
            self._on_progress(1.0)
            self._loaded(self.info, self._now_s() - begun_s)
            reason = await host.died()
            if self.state is ModelState.WARM:
                self._room.reloading(self.model)
                self._move(ModelState.LOADING)
            return reason
        finally:
            await whole(host.close())
            self._before = self.stats
            self._host = None

    def _loaded(self, info: EngineInfo, took_s: float) -> None:
        self.loads.count += 1
        self.loads.total_ms += round(took_s * 1000)
        self._load_times.took(self.model, self.needs.size_bytes, took_s)
        self._move(ModelState.WARM)
        self._room.warm(self.model, info.memory_bytes, took_s)
        _log.info("%s: warm after %.1f s", self.model, took_s)

    def _fail(self, reason: str) -> None:
        self.error = reason
        _log.error("%s: out of service: %s", self.model, reason)
        self._move(ModelState.FAILED)

    def _on_progress(self, fraction: float) -> None:
        self.progress = fraction
        self._say(Happening.PROGRESS)
        for watcher in self._watchers:
            watcher(fraction)

    def _move(self, state: ModelState) -> None:
        self.state = moved(self.state, state)
        self._say(Happening.STATE, self.error or "" if state is ModelState.FAILED else "")
        self._changes.tell()

    def _say(self, happening: Happening, message: str = "") -> None:
        self._events.tell(
            happening,
            self.model,
            self.state,
            self.progress,
            memory_bytes=self.memory_bytes,
            message=message,
        )
