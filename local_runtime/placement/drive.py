"""The loop that drives an engine: the same one in a thread and in a child."""

import logging
import queue
import time
from collections.abc import Callable

from local_runtime.engines.builtin import make_engine
from local_runtime.engines.contract import (
    Engine,
    EngineEvent,
    EngineLoadError,
    EngineRequest,
    Failed,
    Piece,
    Worked,
)
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
TELL_NS = 16_000_000  # a screen shows no more than 60 pictures a second


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
    engine = _loaded(inbox, tell, before_loading)
    if engine is None:
        return
    outlet = _Outlet(engine, tell)
    while True:
        if not _take_in(inbox, engine, tell):
            break
        if engine.has_work:
            outlet.take(engine.step())
    engine.unload()


class _Outlet:
    """Tells what came of steps: at once where somebody waits for a beginning or an end, and else
    every ``TELL_NS``, since whoever listens takes processor time from the steps that follow.
    """

    def __init__(self, engine: Engine, tell: Callable[[FromEngine], None]) -> None:
        self._engine = engine
        self._tell = tell
        self._waiting: list[EngineEvent] = []
        self._told_ns = 0
        self._speaking: set[str] = set()

    def take(self, events: list[EngineEvent]) -> None:
        """The events of one step, in order."""
        self._waiting += events
        urgent = [self._is_urgent(event) for event in events]  # all of them: it remembers who spoke
        now_ns = time.monotonic_ns()
        if any(urgent) or not self._engine.has_work or now_ns - self._told_ns >= TELL_NS:
            engine, waiting = self._engine, self._waiting
            self._waiting, self._told_ns = [], now_ns
            self._tell(Stepped(waiting, engine.busy_ns, engine.unbilled_ns, engine.occupancy))

    def _is_urgent(self, event: EngineEvent) -> bool:
        if isinstance(event, Worked):
            return False
        if not isinstance(event, Piece):
            self._speaking.discard(event.request_id)
            return True
        first = event.request_id not in self._speaking
        self._speaking.add(event.request_id)
        return first or event.finish_reason is not None


def _loaded(
    inbox: "queue.SimpleQueue[ToEngine]",
    tell: Callable[[FromEngine], None],
    before_loading: Callable[[], None],
) -> Engine | None:
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
    return engine


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
