"""The engine in a process of its own: a crash in native code takes nothing else with it.

The child gets none of this process's secrets, is more likely to be killed when memory runs out, and
does not outlive this process: it ends at the end of its standard input, and on Linux also by the
parent-death signal (``local_runtime/worker.py``). What memory it may take is bounded
(``memory_cap.py``); one that hits that bound ends like any other, with a reason of its own.
"""

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from local_runtime.engines.contract import EngineInfo, EngineLoadError, EngineSpec
from local_runtime.placement.frames import (
    BrokenPipe,
    Load,
    Quit,
    Splitter,
    ToEngine,
    encode,
    from_engine_decoder,
)
from local_runtime.placement.memory_cap import (
    MEMORY_EXIT,
    MemoryCap,
    complains_of_memory,
    explained,
    explained_by_kernel,
    kernel_kills,
)
from local_runtime.placement.reports import ReportedHost
from local_runtime.placement.runnable import runnable
from local_runtime.placement.streams import OUT_OF_MEMORY

_log = logging.getLogger(__name__)

QUIT_SECONDS_MAX = 5.0
# A step is at most one batch of tokens; on the slowest machines that is a matter of seconds.
STEP_SECONDS_MAX = 120.0
# Loading says how far it is, but a slow disk can keep it silent for long.
LOAD_SILENCE_SECONDS_MAX = 900.0
LAST_WORDS_SECONDS_MAX = 1.0
_SIGKILL = 9
_STDERR_LINES_KEPT = 20

# What a child may know of our environment. Everything else could be a secret.
_ENVIRONMENT = frozenset(
    {
        "CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "HOME", "LANG",
        "LD_LIBRARY_PATH", "PATH", "ROCR_VISIBLE_DEVICES", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR",
        "TZ", "VIRTUAL_ENV", "VK_DRIVER_FILES", "VK_ICD_FILENAMES",
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


class _FramesIn(asyncio.Protocol):
    """The child's end of the pipe: every frame is taken where it is read.

    By way of a stream and a task of its own a token would reach its call two rounds of the event
    loop later, which at one stream is as much work as all the rest.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._take = take
        self._splitter = Splitter()

    def data_received(self, data: bytes) -> None:
        if self.over.done():
            return
        try:
            for body in self._splitter.feed(data):
                self._take(body)
        except (BrokenPipe, msgspec.MsgspecError) as error:
            self.over.set_result(f"it sent what is no frame: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result("")


class ChildHost(ReportedHost):
    """A ``Host``; see ``contract.py``."""

    def __init__(
        self,
        spec: EngineSpec,
        command: Sequence[str] | None = None,
        *,
        step_s_max: float = STEP_SECONDS_MAX,
        environment: Mapping[str, str] | None = None,
        memory: MemoryCap = MemoryCap(),  # noqa: B008  # frozen
    ) -> None:
        """``environment`` is added to what the child gets: how this machine's processor is best
        used, say. A child that has work and gives no sign of life for ``step_s_max`` is killed.
        """
        super().__init__(self._write)
        self._spec = spec
        self._step_s_max = step_s_max
        self._environment = dict(environment or {})
        self._memory = memory
        self._kernel_kills = [0, 0]  # as they were at the last two looks
        self._command = list(command or default_command())
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._watch: asyncio.Task[None] | None = None
        self._fault = ""
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES_KEPT)

    async def start(self, progress: Callable[[float], None]) -> EngineInfo:
        environment = child_environment(dict(os.environ)) | self._environment
        self._spec = await runnable(self._spec, environment, self._command)
        pipe = asyncio.subprocess.PIPE
        ours, theirs = _pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=pipe,
                stdout=theirs,
                stderr=pipe,
                env=environment,
                close_fds=True,  # the default; without it the ledger's files were the child's too
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(theirs)
        self._begin(progress, self._process.pid)
        frames = _FramesIn(lambda body: self._take(from_engine_decoder.decode(body)))
        await asyncio.get_running_loop().connect_read_pipe(lambda: frames, ours)
        last_words = asyncio.create_task(self._read_stderr(self._process), name="engine-stderr")
        until_over = self._until_over(self._process, frames, last_words)
        self._tasks = [asyncio.create_task(until_over, name="engine-frames"), last_words]
        self._watch = asyncio.create_task(self._watch_over(self._process), name="engine-watch")
        self._send(Load(self._spec, self._memory.bytes_max))
        try:
            return await asyncio.shield(self._loaded)
        except EngineLoadError as error:
            await asyncio.wait({last_words}, timeout=LAST_WORDS_SECONDS_MAX)
            if not complains_of_memory([str(error), *self._stderr]):
                raise
            self._memory.on_hit()
            raise EngineLoadError(explained(self._memory.bytes_max)) from error

    async def close(self) -> None:
        """Ask it to quit, and end it if it does not."""
        self._closing = True
        process = self._process
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
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

    async def _until_over(
        self,
        process: asyncio.subprocess.Process,
        frames: _FramesIn,
        last_words: asyncio.Task[None],
    ) -> None:
        """Until the child's end."""
        if fault := await frames.over:
            self._kill(process, fault)
        status = await process.wait()
        await asyncio.wait({last_words}, timeout=LAST_WORDS_SECONDS_MAX)
        if self._fault:
            self._over(self._fault)
        elif reason := self._want_of_memory(status):
            self._over(reason, OUT_OF_MEMORY)
        else:
            self._over(_cause(status, self._stderr))

    def _want_of_memory(self, status: int) -> str:
        """In words: that, where it was why the child ended."""
        if -status == _SIGKILL and kernel_kills() > self._kernel_kills[0]:
            reason = explained_by_kernel()
        elif status and (status == MEMORY_EXIT or complains_of_memory(self._stderr)):
            reason = explained(self._memory.bytes_max)
        else:
            return ""
        self._memory.on_hit()
        return reason

    async def _watch_over(self, process: asyncio.subprocess.Process) -> None:
        """End a child that hangs: it owes somebody something and does no step."""
        loop = asyncio.get_running_loop()
        seen, since_s = self._signs, loop.time()
        self._kernel_kills = [kernel_kills()] * 2
        while True:
            # A kill is counted a moment before its victim is seen to be gone.
            self._kernel_kills = [self._kernel_kills[1], kernel_kills()]
            is_loading = not self._loaded.done()
            limit_s = LOAD_SILENCE_SECONDS_MAX if is_loading else self._step_s_max
            await asyncio.sleep(min(1.0, limit_s / 4))
            if self._signs != seen or not (is_loading or self._streams.has_work):
                seen, since_s = self._signs, loop.time()
            elif loop.time() - since_s > limit_s:
                self._kill(process, f"it hung: no sign of life for {limit_s:g} s")
                return

    def _kill(self, process: asyncio.subprocess.Process, fault: str) -> None:
        self._fault = self._fault or fault
        with suppress(ProcessLookupError):
            process.kill()

    async def _read_stderr(self, process: asyncio.subprocess.Process) -> None:
        """What native code prints goes to our log."""
        stream = process.stderr
        assert stream is not None
        while chunk := await stream.read(64 * 1024):
            for line in chunk.decode("utf-8", "replace").splitlines():
                self._stderr.append(line[:500])
                _log.debug("engine %s: %s", process.pid, line)


def _pipe() -> tuple[BinaryIO, int]:
    """A pipe: the end to read from, which closes itself, and the descriptor to write to."""
    ours, theirs = os.pipe()
    return cast(BinaryIO, open(ours, "rb", buffering=0)), theirs


def _cause(status: int, stderr: Sequence[str]) -> str:
    """In words: how the child ended, and the last it said."""
    how = f"it was killed by signal {-status}" if status < 0 else f"it exited with status {status}"
    last = " | ".join(stderr)[-300:]
    return f"{how}; its last words: {last}" if last else how
