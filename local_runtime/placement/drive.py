"""The loop that drives an engine: the same one in a thread and in a child."""

import logging
import queue
import time
from collections.abc import Callable

from local_runtime.engines.builtin import make_engine
from local_runtime.engines.contract import (
    Engine,
    EngineEvent,
    EngineInfo,
    EngineLoadError,
    EngineRequest,
    Failed,
    Piece,
    Worked,
)
from local_runtime.engines.threads import usable_cores
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
from plugins.contract import FailureKind, Usage

_log = logging.getLogger(__name__)
_PROGRESS_STEP = 0.01
# How old a piece may be before it is told. To tell takes a third of a millisecond of processor
# time, here and where it is heard, whatever is in it: as often as a cinema shows pictures, that is
# a hundredth of what a step has where the engine uses every core, and else nobody's loss.
TELL_NS_MAX = 40_000_000
TELL_NS_MAX_BESIDE_FREE_CORES = 20_000_000


def drive(
    inbox: "queue.SimpleQueue[ToEngine]",
    tell: Callable[[FromEngine], None],
    *,
    before_loading: Callable[[], None] = lambda: None,
) -> None:
    """Load what the first message says, then step while there is work, until told to quit.

    ``before_loading`` is called once the engine's code is there, before it reads a file.
    Returns after ``Quit``, or after a load that failed and said so. Whatever else the engine raises
    goes up: it is broken.
    """
    loaded = _loaded(inbox, tell, before_loading)
    if loaded is None:
        return
    engine, info = loaded
    outlet = _Outlet(engine, tell, tell_ns_max(info))
    while True:
        if not _take_in(inbox, engine, tell):
            break
        if engine.has_work:
            outlet.take(engine.step())
    engine.unload()


def tell_ns_max(info: EngineInfo) -> int:
    """How long to wait for more to tell: less where the engine leaves cores to whoever listens."""
    crowded = info.threads >= usable_cores() and not info.gpu_layers
    return TELL_NS_MAX if crowded else TELL_NS_MAX_BESIDE_FREE_CORES


class _Outlet:
    """Tells what came of steps: at once where somebody waits for a beginning or an end, and else
    after the last step before what waits would be older than ``ns_max``, if the next takes as long
    as this one did. Whoever listens takes processor time from the steps that follow.
    """

    def __init__(self, engine: Engine, tell: Callable[[FromEngine], None], ns_max: int) -> None:
        self._engine = engine
        self._tell = tell
        self._ns_max = ns_max
        self._waiting: list[EngineEvent] = []
        self._told_ns = 0
        self._stepped_ns = 0
        self._speaking: set[str] = set()

    def take(self, events: list[EngineEvent]) -> None:
        """The events of one step, in order."""
        self._waiting += events
        urgent = False
        for event in events:
            urgent |= self._is_urgent(event)  # asked of all: it remembers who spoke
        engine, now_ns = self._engine, time.monotonic_ns()
        next_ns = 2 * now_ns - self._stepped_ns
        self._stepped_ns = now_ns
        if urgent or not engine.has_work or next_ns - self._told_ns > self._ns_max:
            waiting, self._waiting, self._told_ns = self._waiting, [], now_ns
            self._tell(Stepped(waiting, engine.busy_ns, engine.unbilled_ns, engine.occupancy))

    def _is_urgent(self, event: EngineEvent) -> bool:
        if isinstance(event, Worked):
            return False
        if not isinstance(event, Piece):
            self._speaking.discard(event.request_id)
            return True
        if event.finish_reason is not None:
            return True
        if event.request_id in self._speaking:
            return False
        self._speaking.add(event.request_id)
        return True


def _loaded(
    inbox: "queue.SimpleQueue[ToEngine]",
    tell: Callable[[FromEngine], None],
    before_loading: Callable[[], None],
) -> tuple[Engine, EngineInfo] | None:
    first = inbox.get()
    if not isinstance(first, Load):
        return None
    told = -1.0

    def progress(fraction: float) -> None:
        nonlocal told
        if fraction - told >= _PROGRESS_STEP or fraction >= 1 > told:
            told = fraction
            tell(Progress(fraction))

    try:
        engine = make_engine(first.spec.engine)
        before_loading()
        info = engine.load(first.spec, progress)
    except (EngineLoadError, ValueError) as error:
        tell(LoadFailed(str(error)))
        return None
    tell(Loaded(info))
    return engine, info


def _submit(engine: Engine, request: EngineRequest, tell: Callable[[FromEngine], None]) -> None:
    """One request must not take down the others, whatever is in it."""
    try:
        engine.submit(request)
    except Exception as error:  # noqa: BLE001  # a bug of ours, found by this request alone
        _log.exception("a request could not be prepared")
        failed = Failed(
            request.request_id,
            Usage(),
            FailureKind.UPSTREAM,
            "The model cannot work on this request.",
            detail=f"{type(error).__name__}: {error}",
        )
        tell(Stepped([failed], engine.busy_ns, engine.unbilled_ns, engine.occupancy))


def _take_in(
    inbox: "queue.SimpleQueue[ToEngine]", engine: Engine, tell: Callable[[FromEngine], None]
) -> bool:
    """Everything that waits in the inbox; waits itself when there is no work. False: quit."""
    while True:
        try:
            message = inbox.get(block=not engine.has_work)
        except queue.Empty:
            return True
        if isinstance(message, Submit):
            _submit(engine, message.request, tell)
        elif isinstance(message, Cancel):
            engine.cancel(message.request_id)
        elif isinstance(message, Quit):
            return False
