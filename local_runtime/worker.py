"""The child's main: one engine behind a pipe. Started by ``placement/child.py``, never by hand.

Frames come in on standard input and go out on standard output. Native code likes to print, so both
descriptors are taken over first, and whatever else is written to standard output lands in standard
error, which the parent logs.
"""

import ctypes
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from local_runtime.placement.drive import drive
from local_runtime.placement.frames import BrokenPipe, ToEngine, reader, to_engine_decoder, writer

_OOM_SCORE_ADJUSTMENT = 500  # the kernel should take the engine before the ledger
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_EXIT_BROKEN = 70  # EX_SOFTWARE


def main() -> int:
    """Serve until told to quit, or until the parent is gone. Returns the exit status."""
    frames_in, frames_out = _take_over_pipes()
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="%(name)s: %(message)s")
    _confine()
    inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
    threading.Thread(
        target=_receive, args=(reader(frames_in), inbox), name="frames", daemon=True
    ).start()
    try:
        drive(inbox, writer(frames_out))
    except BrokenPipe:
        return 0
    except Exception:
        logging.getLogger(__name__).exception("the engine broke")
        return _EXIT_BROKEN
    return 0


def _take_over_pipes() -> tuple[int, int]:
    """Our own copies of standard input and output; the originals become harmless."""
    frames_in, frames_out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return frames_in, frames_out


def _receive(read: Callable[[], bytes | None], inbox: "queue.SimpleQueue[ToEngine]") -> None:
    """Frames into the inbox. The end of the pipe is the end of the parent, and so of this child."""
    while (body := read()) is not None:
        inbox.put(to_engine_decoder.decode(body))
    os._exit(0)


def _confine() -> None:
    """Die with the parent, before it when memory is short, without more rights or a core file."""
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold prompts
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJUSTMENT))


if __name__ == "__main__":
    sys.exit(main())
