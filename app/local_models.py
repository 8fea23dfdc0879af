"""The local runtime, as the ``/api`` surface and the metrics see it."""

import asyncio
from collections.abc import AsyncGenerator

from app.api.admin.local_wire import LocalEventLine, LocalModelLine, LocalModelList
from app.errors import Conflict, NotFound
from app.limits.concurrency import InFlight
from local_runtime.lifecycle.events import ModelEvent
from local_runtime.runtime import LocalRuntime
from local_runtime.status import ModelStatus

HEARTBEAT_S = 15.0
_LOOK_S = 0.5  # how late a stream notices that the server stops


class ServedModels:
    """``app.api.admin.local_wire.LocalModels`` over the runtime.

    ``serving``: whether this process runs engines; the command line's own appliance does not.
    Once ``in_flight`` drains, the server is about to stop, and streams of events end.
    """

    def __init__(self, runtime: LocalRuntime, in_flight: InFlight, *, serving: bool) -> None:
        self._runtime = runtime
        self._in_flight = in_flight
        self._serving = serving

    def every(self) -> LocalModelList:
        """All of them now."""
        lines = [_line(status) for status in self._runtime.status()]
        return LocalModelList(
            data=lines,
            memory_bytes=sum(line.memory_bytes for line in lines),
            memory_bytes_max=self._runtime.room.bytes_max,
        )

    def load(self, model: str) -> None:
        """Begin to load it. Raises NotFound, Conflict."""
        self._check(model)
        self._runtime.begin_loading(model)

    def unload(self, model: str) -> None:
        """Have it leave once its running calls have ended. Raises NotFound, Conflict."""
        self._check(model)
        self._runtime.begin_unloading(model)

    async def events(self, after: int | None) -> AsyncGenerator[LocalEventLine | None, None]:
        """See ``LocalModels``."""
        loop = asyncio.get_running_loop()
        events = self._runtime.events(after)
        coming: asyncio.Task[ModelEvent] | None = None
        quiet_since_s = loop.time()
        try:
            while not self._in_flight.draining:
                if coming is None:
                    coming = asyncio.ensure_future(anext(events))
                await asyncio.wait({coming}, timeout=_LOOK_S)
                if coming.done():
                    yield _event(coming.result())
                    coming = None
                    quiet_since_s = loop.time()
                elif loop.time() - quiet_since_s > HEARTBEAT_S:
                    yield None
                    quiet_since_s = loop.time()
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            await events.aclose()

    def _check(self, model: str) -> None:
        if model not in self._runtime.models:
            known = ", ".join(self._runtime.models) or "none"
            raise NotFound(f"There is no local model {model!r}; there are: {known}.")
        if not self._serving:
            raise Conflict("No server runs on this data directory. Start it with `turnpike serve`.")


def _line(status: ModelStatus) -> LocalModelLine:
    return LocalModelLine(
        model=status.model,
        state=str(status.state),
        engine=status.engine,
        placement=status.placement,
        progress=status.progress,
        waits_for_room=status.waits_for_room,
        memory_bytes=status.memory_bytes,
        needs_bytes=status.needs_bytes,
        estimated_s=round(status.estimate_s, 1),
        calls_running=status.calls_running,
        calls_waiting=status.calls_waiting,
        idle_s=None if status.idle_s is None else round(status.idle_s, 1),
        keep=status.keep,
        keep_alive_s=status.keep_alive_s,
        busy_ms=status.busy_ns / 1e6,
        unbilled_ms=status.unbilled_ns / 1e6,
        sequences_running=status.occupancy.sequences_running,
        cells=status.occupancy.cells,
        cells_used=status.occupancy.cells_used,
        kept_tokens=status.occupancy.kept_tokens,
        loads=status.loads,
        load_ms=status.load_ms,
        out_of_memory=status.out_of_memory,
        crashes=status.crashes,
        evictions=status.evictions,
        pid=status.pid,
        error=status.error,
    )


def _event(event: ModelEvent) -> LocalEventLine:
    return LocalEventLine(
        id=event.number,
        at_ms=event.at_ms,
        event=str(event.happening),
        model=event.model,
        state=str(event.state),
        progress=event.progress,
        memory_bytes=event.memory_bytes,
        message=event.message,
    )
