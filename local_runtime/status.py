"""What there is to say of a model, whatever it is doing."""

import msgspec

from local_runtime.engines.contract import Occupancy
from local_runtime.lifecycle.states import ModelState
from local_runtime.lifecycle.supervisor import Supervisor


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One model now, for ``/readyz`` and metrics. Counts and sums are since this process started.

    ``memory_bytes`` is what it holds of the ``memory_bytes_max`` of all models, measured where it
    was loaded once; ``estimate_s`` the seconds until it is warm, if it is or were loaded now.
    """

    model: str
    state: ModelState
    engine: str
    placement: str
    progress: float
    error: str | None
    preload: bool
    calls_running: int
    calls_waiting: int
    crashes: int
    busy_ns: int
    unbilled_ns: int
    occupancy: Occupancy
    threads: int | None
    pid: int | None
    memory_bytes: int
    needs_bytes: int
    waits_for_room: bool
    keep: bool
    keep_alive_s: float
    estimate_s: float
    idle_s: float | None
    loads: int
    load_ms: int
    out_of_memory: int
    evictions: int


def status_of(
    supervisor: Supervisor,
    *,
    engine: str,
    placement: str,
    preload: bool,
    calls_open: int,
    sequences_max: int,
) -> ModelStatus:
    """``calls_open`` are all that have come and not ended; those that do not run, wait."""
    running = min(supervisor.running, sequences_max)
    stats = supervisor.stats
    return ModelStatus(
        model=supervisor.model,
        state=supervisor.state,
        engine=engine,
        placement=placement,
        progress=supervisor.progress,
        error=supervisor.error,
        preload=preload,
        calls_running=running,
        calls_waiting=calls_open - running,
        crashes=supervisor.restarts.total,
        busy_ns=stats.busy_ns,
        unbilled_ns=stats.unbilled_ns,
        occupancy=stats.occupancy,
        threads=supervisor.info.threads if supervisor.info else None,
        pid=stats.pid,
        memory_bytes=supervisor.memory_bytes,
        needs_bytes=supervisor.needs_bytes,
        waits_for_room=supervisor.waits_for_room,
        keep=supervisor.needs.keep,
        keep_alive_s=supervisor.needs.keep_alive_s,
        estimate_s=supervisor.estimate_s(),
        idle_s=supervisor.idle_s,
        loads=supervisor.loads.count,
        load_ms=supervisor.loads.total_ms,
        out_of_memory=supervisor.loads.out_of_memory,
        evictions=supervisor.evictions,
    )


def status_without_files(
    model: str,
    state: ModelState,
    *,
    engine: str,
    placement: str,
    preload: bool,
    progress: float,
    error: str | None,
) -> ModelStatus:
    """Of a configured model whose files are not here: absent, being pulled, or refused."""
    return ModelStatus(
        model=model,
        state=state,
        engine=engine,
        placement=placement,
        progress=progress,
        error=error,
        preload=preload,
        calls_running=0,
        calls_waiting=0,
        crashes=0,
        busy_ns=0,
        unbilled_ns=0,
        occupancy=Occupancy(),
        threads=None,
        pid=None,
        memory_bytes=0,
        needs_bytes=0,
        waits_for_room=False,
        keep=False,
        keep_alive_s=0.0,
        estimate_s=0.0,
        idle_s=None,
        loads=0,
        load_ms=0,
        out_of_memory=0,
        evictions=0,
    )
