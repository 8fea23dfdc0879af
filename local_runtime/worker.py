"""The child's main: one engine behind a pipe. Started by ``placement/child.py``, never by hand.

What it may do shrinks on the way (``placement/sandbox.py``): no network from the start, only the
model's files once it is known which, no programs and processes before any of them is read.

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

from local_runtime.engines.contract import EngineSpec
from local_runtime.engines.torch_tasks.folder import files_read
from local_runtime.placement.drive import drive
from local_runtime.placement.frames import (
    BrokenPipe,
    Load,
    ToEngine,
    reader,
    to_engine_decoder,
    writer,
)
from local_runtime.placement.memory_cap import MEMORY_EXIT, hold_to
from local_runtime.placement.sandbox import (
    drop_capabilities,
    refuse_network,
    refuse_processes,
    restrict_files,
)

_OOM_SCORE_ADJUSTMENT = 500  # the kernel should take the engine before the ledger
_OOM_SCORE_ABOVE_PARENT = 200  # some containers give the server a high one
_OOM_SCORE_MAX = 1000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_EXIT_BROKEN = 70  # EX_SOFTWARE


def main() -> int:
    """Serve until told to quit, or until the parent is gone. Returns the exit status.

    With ``TURNPIKE_PROBE`` in the environment it only finds out what runs on this processor,
    and how fast.
    """
    if (asked := os.environ.get("TURNPIKE_PROBE")) is not None:
        from local_runtime.engines.llama.probe import answer

        _confine()
        return answer(asked)
    frames_in, frames_out = _take_over_pipes()
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="%(name)s: %(message)s")
    _confine()
    read = reader(frames_in)
    inbox: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
    # The files are restricted for this thread and those that it starts, so it starts none before.
    first = read()
    if first is None:
        return 0
    order = to_engine_decoder.decode(first)
    if isinstance(order, Load):
        _say(files=restrict_files(files_of(order.spec)))
        if order.process_bytes_max is not None:
            _say(memory=hold_to(order.process_bytes_max))
    inbox.put(order)
    threading.Thread(target=_receive, args=(read, inbox), name="frames", daemon=True).start()
    try:
        drive(inbox, writer(frames_out), before_loading=_lock)
    except BrokenPipe:
        return 0
    except MemoryError:
        logging.getLogger(__name__).exception("the engine ran out of memory")
        return MEMORY_EXIT
    except Exception:
        logging.getLogger(__name__).exception("the engine broke")
        return _EXIT_BROKEN
    return 0


def _take_over_pipes() -> tuple[int, int]:
    """Our own copies of standard input and output; the originals become harmless."""
    frames_in, frames_out = os.dup(0), os.dup(1)
    nothing, end = os.pipe()  # there is no /dev/null everywhere
    os.close(end)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return frames_in, frames_out


def _receive(read: Callable[[], bytes | None], inbox: "queue.SimpleQueue[ToEngine]") -> None:
    """Frames into the inbox. The end of the pipe is the end of the parent, and so of this child."""
    try:
        while (body := read()) is not None:
            inbox.put(to_engine_decoder.decode(body))
    except MemoryError:
        os._exit(MEMORY_EXIT)
    os._exit(0)


def files_of(spec: EngineSpec) -> list[str]:
    """What the engine has to read: the files it is told to load, and their other parts where a
    model is split into several (llama.cpp: ``NAME-00001-of-00003.gguf``)."""
    named = [spec.path, spec.projector_path, spec.draft_path]
    named += [adapter.path for adapter in spec.adapters.values()]
    files = [path for path in named if path]
    if spec.engine == "torch":
        files += map(str, files_read(Path(spec.path)))
    for path in map(Path, list(files)):
        head, split, _ = path.name.rpartition("-of-")
        if split:
            files += map(str, path.parent.glob(f"{head.rpartition('-')[0]}-*-of-*.gguf"))
    return files


def _lock() -> None:
    """The last moment before hostile bytes are read: the engine's code is imported."""
    _say(processes=refuse_processes())


def _say(**in_force: bool) -> None:
    for what, is_so in in_force.items():
        if not is_so and sys.platform == "linux":
            logging.getLogger(__name__).warning("this kernel cannot restrict %s", what)


def _confine() -> None:
    """Die with the parent, before it when memory is short, without more rights or a core file."""
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold prompts
    _say(capabilities=drop_capabilities())
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with suppress(OSError, ValueError):
            score = Path("/proc/self/oom_score_adj")
            inherited = int(score.read_text(encoding="ascii"))
            wanted = max(_OOM_SCORE_ADJUSTMENT, inherited + _OOM_SCORE_ABOVE_PARENT)
            score.write_text(str(min(_OOM_SCORE_MAX, wanted)), encoding="ascii")
    _say(network=refuse_network())


if __name__ == "__main__":
    sys.exit(main())
