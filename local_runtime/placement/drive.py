"""The loop that drives an engine: the same one in a thread and in a child."""

import logging
import queue
from collections.abc import Callable

from local_runtime.engines.builtin import make_engine
from local_runtime.engines.contract import Engine, EngineLoadError, EngineRequest, Failed
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


def drive(inbox: "queue.SimpleQueue[ToEngine]", tell: Callable[[FromEngine], None]) -> None:
    """Load what the first message says, then step while there is work, until told to quit.

    Returns after ``Quit``, or after a load that failed and said so. Whatever else the engine raises
    goes up: it is broken.
    """
    engine = _loaded(inbox, tell)
    if engine is None:
        return
    while True:
        if not _take_in(inbox, engine, tell):
            break
        if engine.has_work:
            events = engine.step()
            tell(Stepped(events, engine.busy_ns, engine.unbilled_ns))
    engine.unload()


def _loaded(
    inbox: "queue.SimpleQueue[ToEngine]", tell: Callable[[FromEngine], None]
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
        tell(Stepped([failed], engine.busy_ns, engine.unbilled_ns))


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
