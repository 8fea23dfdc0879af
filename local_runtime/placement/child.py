"""The engine in a process of its own: a crash in native code takes nothing else with it.

The child gets none of this process's secrets, is more likely to be killed when memory runs out, and
does not outlive this process: it ends at the end of its standard input, and on Linux also by the
parent-death signal (``local_runtime/worker.py``).
"""

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from local_runtime.engines.contract import EngineInfo, EngineSpec
from local_runtime.placement.frames import (
    LENGTH,
    BrokenPipe,
    Load,
    Quit,
    ToEngine,
    body_length,
    encode,
    from_engine_decoder,
)
from local_runtime.placement.reports import ReportedHost

_log = logging.getLogger(__name__)

QUIT_SECONDS_MAX = 5.0
LAST_WORDS_SECONDS_MAX = 1.0
_STDERR_LINES_KEPT = 20

# What a child may know of our environment. Everything else could be a secret.
_ENVIRONMENT = frozenset(
    {
        "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "HOME", "LANG", "LD_LIBRARY_PATH", "PATH",
        "ROCR_VISIBLE_DEVICES", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TZ", "VIRTUAL_ENV",
    }
)  # fmt: skip
# Locale, and how a frozen child finds the folder that its parent unpacked.
_ENVIRONMENT_PREFIXES = ("LC_", "_PYI_")


def default_command() -> list[str]:
    """How to start a worker from source."""
    return [sys.executable, "-m", "local_runtime.worker"]


def child_environment(ours: dict[str, str]) -> dict[str, str]:
    """The child's environment: the allowed part of ours, and where to import from."""
    kept = {
        name: value
        for name, value in ours.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    if not getattr(sys, "frozen", False):
        kept["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
        kept["PYTHONSAFEPATH"] = "1"  # never import from the working directory
    return kept


class ChildHost(ReportedHost):
    """A ``Host``; see ``contract.py``."""

    def __init__(self, spec: EngineSpec, command: Sequence[str] | None = None) -> None:
        super().__init__(self._write)
        self._spec = spec
        self._command = list(command or default_command())
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES_KEPT)

    async def start(self, progress: Callable[[float], None]) -> EngineInfo:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=child_environment(dict(os.environ)),
            start_new_session=True,
        )
        self._begin(progress, self._process.pid)
        last_words = asyncio.create_task(self._read_stderr(self._process), name="engine-stderr")
        frames = self._read_frames(self._process, last_words)
        self._tasks = [asyncio.create_task(frames, name="engine-frames"), last_words]
        self._send(Load(self._spec))
        return await asyncio.shield(self._loaded)

    async def close(self) -> None:
        """Ask it to quit, and end it if it does not."""
        self._closing = True
        process = self._process
        self._streams.end("the engine was closed")
        if process is None:
            return
        self._send(Quit())
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(QUIT_SECONDS_MAX):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if process.stdin is not None:
            with suppress(OSError):
                await process.stdin.wait_closed()

    def _write(self, message: ToEngine) -> None:
        """Queue a frame. A child that is gone will be found out by the reader."""
        stdin = self._process.stdin if self._process is not None else None
        if stdin is not None and not stdin.is_closing():
            stdin.write(encode(message))

    async def _read_frames(
        self, process: asyncio.subprocess.Process, last_words: asyncio.Task[None]
    ) -> None:
        """Until the child's end."""
        stream = process.stdout
        assert stream is not None
        fault = ""
        try:
            while True:
                length = body_length(await stream.readexactly(LENGTH.size))
                self._take(from_engine_decoder.decode(await stream.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            fault = ""
        except (BrokenPipe, msgspec.MsgspecError) as error:
            fault = f"it sent what is no frame: {error}"
            with suppress(ProcessLookupError):
                process.kill()
        status = await process.wait()
        await asyncio.wait({last_words}, timeout=LAST_WORDS_SECONDS_MAX)
        self._over(fault or _cause(status, self._stderr))

    async def _read_stderr(self, process: asyncio.subprocess.Process) -> None:
        """What native code prints goes to our log."""
        stream = process.stderr
        assert stream is not None
        while chunk := await stream.read(64 * 1024):
            for line in chunk.decode("utf-8", "replace").splitlines():
                self._stderr.append(line[:500])
                _log.debug("engine %s: %s", process.pid, line)


def _cause(status: int, stderr: Sequence[str]) -> str:
    """In words: how the child ended, and the last it said."""
    how = f"it was killed by signal {-status}" if status < 0 else f"it exited with status {status}"
    last = " | ".join(stderr)[-300:]
    return f"{how}; its last words: {last}" if last else how
