"""Notices an event loop that is held up, from a thread beside it, and says by what.

While the loop is held up nothing is answered, ``/livez`` neither: that is how a load balancer or an
orchestrator sees it, and systemd by its watchdog, which the loop answers itself. This thread is for
the operator: it logs which line of code does not end.
"""

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import FrameType

STALL_S = 1.0
LOOK_EVERY_S = 0.25
SAY_EVERY_S = 60.0
_FRAMES_MAX = 12
# The thread itself was held up, as all of the process is where a machine swaps or was suspended.
_OWN_DELAY_S = 0.5

log = logging.getLogger("turnpike.loop")


class LoopWatch:
    """Counts ``stalls``: times that the loop did nothing else for ``STALL_S`` or longer."""

    def __init__(self, *, say_every_s: float = SAY_EVERY_S) -> None:
        self.stalls = 0
        self._say_every_s = say_every_s
        self._said_s: float | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; from within the loop."""
        loop = asyncio.get_running_loop()
        asked = (loop, threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=asked, name="loop", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, within a second; from within the loop."""
        self._over.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            turned = threading.Event()
            asked_s = time.monotonic()
            try:
                loop.call_soon_threadsafe(turned.set)
            except RuntimeError:  # it is closed
                return
            if turned.wait(STALL_S) or time.monotonic() - asked_s > STALL_S + _OWN_DELAY_S:
                continue
            self.stalls += 1
            frame = sys._current_frames().get(thread)
            said = self._say(frame)
            while not turned.wait(STALL_S) and not self._over.is_set():
                pass
            if said:
                log.warning("the event loop turns again, after %.1f s", time.monotonic() - asked_s)

    def _say(self, frame: FrameType | None) -> bool:
        now_s = time.monotonic()
        if self._said_s is not None and now_s - self._said_s < self._say_every_s:
            return False
        self._said_s = now_s
        log.warning(
            "the event loop has been held up for %g s, and with it every call. Report this line if"
            " the machine is not short of processor time or memory: %s",
            STALL_S,
            where(frame),
        )
        return True


def where(frame: FrameType | None) -> str:
    """The innermost calls of a stack in one line, the outermost first. Names of code only: no
    value, and so nothing of anybody's call.
    """
    calls: deque[str] = deque(maxlen=_FRAMES_MAX)
    while frame is not None and len(calls) < _FRAMES_MAX:
        code = frame.f_code
        path = Path(code.co_filename)
        calls.appendleft(f"{'/'.join(path.parts[-2:])}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return " > ".join(calls) or "its thread is gone"
