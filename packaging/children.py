"""Run a child process: its output into the log, line by line to a watcher, no hang, no orphan."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

TICK_SECONDS = 0.1
END_SECONDS_MAX = 10.0
LOG_TAIL_LINES = 30

# Variables with which a person's shell would silently change what is installed, and where.
_CHANGES_INSTALL = (
    "PIP_CONSTRAINT",
    "PIP_PREFIX",
    "PIP_PROGRESS_BAR",
    "PIP_QUIET",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PIP_VERBOSE",
    "PYTHONHOME",
    "PYTHONPATH",
)
# And those that would change what is built. SOURCE_DATE_EPOCH turns AVX2 off in llama.cpp.
_CHANGES_BUILD = (
    "CFLAGS",
    "CMAKE_ARGS",
    "CMAKE_GENERATOR",
    "CPPFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "SKBUILD_CMAKE_ARGS",
    "SKBUILD_CMAKE_DEFINE",
    "SOURCE_DATE_EPOCH",
)


class ChildFailed(Exception):
    """The child ended with a status other than 0."""

    def __init__(self, command: list[str], status: int, tail: list[str]) -> None:
        super().__init__(f"{Path(command[0]).name} ended with status {status}")
        self.command = command
        self.status = status
        self.tail = tail


def clean_environment(venv: Path, **extra: str) -> dict[str, str]:
    """This process's environment without what would change the result; ``.venv`` first on PATH."""
    dropped = {*_CHANGES_INSTALL, *_CHANGES_BUILD}
    environment = {k: v for k, v in os.environ.items() if k not in dropped}
    scripts = venv / ("Scripts" if os.name == "nt" else "bin")
    environment["PATH"] = f"{scripts}{os.pathsep}{environment.get('PATH', '')}"
    environment |= {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PYTHONUNBUFFERED": "1",
        "VIRTUAL_ENV": str(venv),
    }
    return environment | extra


def run(
    command: list[str],
    *,
    log: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    on_tick: Callable[[], None],
    cwd: Path | None = None,
) -> None:
    """Run to the end; ChildFailed with the last lines where the status is not 0.

    Interrupted (Ctrl-C, SIGTERM), it ends the child with all that the child started.
    """
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    tail: list[str] = []
    with log.open("a", encoding="utf-8") as record:
        record.write(f"$ {' '.join(command)}\n")
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=dict(env),
            cwd=cwd,
            start_new_session=os.name != "nt",
        )
        if child.stdout is None:
            raise RuntimeError("the child has no output pipe")
        threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
        try:
            while True:
                try:
                    line = lines.get(timeout=TICK_SECONDS)
                except queue.Empty:
                    on_tick()
                    continue
                if line is None:
                    break
                on_line(line)
                if not line.startswith("Progress "):
                    record.write(f"{line}\n")
                    tail = [*tail[-LOG_TAIL_LINES + 1 :], line]
            status = child.wait()
        except BaseException:
            _end(child)
            raise
    if status != 0:
        raise ChildFailed(command, status, tail)


def _read(pipe: IO[str], lines: "queue.SimpleQueue[str | None]") -> None:
    try:
        with pipe:
            for line in pipe:
                lines.put(line.rstrip())
    finally:
        lines.put(None)


def _end(child: "subprocess.Popen[str]") -> None:
    for how in ("SIGTERM", "SIGKILL"):
        if sys.platform == "win32":
            child.terminate()
        else:
            try:
                os.killpg(child.pid, getattr(signal, how))
            except ProcessLookupError:
                return
        try:
            child.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            continue
        return
