"""Starting the program anew in its own process: ``execve(2)``, after everything was stopped.

The process stays the same one, so that supervisors and containers see nothing; the program may be
a newer one. What it needs is checked before the old one stops: ``turnpike serve --check``, by the
very program that would take over.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from app.cli.notify import Notifier
from app.cli.sockets import FIRST_FD, HANDED_OVER
from app.errors import ConfigError

log = logging.getLogger("turnpike.serve")
CHECK_SECONDS_MAX = 120.0
EXIT_FAILED = 1
_LAST_WORDS_BYTES = 2000


@dataclass(frozen=True)
class HandOver:
    """What the next program gets."""

    program: Sequence[str]
    sockets: Sequence[socket.socket]
    origin: str
    notifier: Notifier


def this_program() -> list[str]:
    """How this program is started anew, with the same arguments: to be asked when it starts.

    A frozen program goes by the name that it was called by. Where that is a link, an upgrade has
    it point to another program by the time it is used.
    """
    if not getattr(sys, "frozen", False):
        return [sys.executable, *sys.orig_argv[1:]]
    # What is one file unpacks itself and becomes the program in there; see packaging/front.c.
    file = os.environ.get("TURNPIKE_FILE", sys.executable)
    called = shutil.which(sys.argv[0])
    same = called is not None and os.path.samefile(called, file)
    return [os.path.abspath(called) if called and same else file, *sys.argv[1:]]


async def check(program: Sequence[str]) -> None:
    """Have the program say whether it can start. Raises ConfigError with its own words."""
    try:
        child = await asyncio.create_subprocess_exec(
            *program,
            "--check",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
    except OSError as error:
        raise ConfigError(f"{program[0]} cannot be run: {error.strerror}.") from error
    try:
        async with asyncio.timeout(CHECK_SECONDS_MAX):
            _, said = await child.communicate()
    except TimeoutError as error:
        raise ConfigError(
            f"`{' '.join(program)} --check` did not end within {CHECK_SECONDS_MAX:.0f} seconds."
        ) from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        words = said.decode("utf-8", "replace").strip()[-_LAST_WORDS_BYTES:]
        raise ConfigError(words.removeprefix("Error: ") or f"it exited with {child.returncode}")


def ignore_signals() -> None:
    """A signal for a program that is not there yet, or no longer, must not end the process."""
    for name in ("SIGHUP", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def hold_signals() -> None:
    """Until ``take_place``: the event loop's end gives signals their old meaning back, which is to
    end the process."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR2})


def take_place(handed: HandOver) -> NoReturn:
    """Become the next program. Nothing may run any more: no thread, no child, no open file that
    is needed."""
    ignore_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGUSR2})
    sys.stdout.flush()
    sys.stderr.flush()
    environment = {
        **_environment(),
        **handed.notifier.environment(),
        "LISTEN_FDS": str(len(handed.sockets)),
        "LISTEN_PID": str(os.getpid()),
        HANDED_OVER: handed.origin,
    }
    _number(handed.sockets)
    try:
        os.execve(handed.program[0], list(handed.program), environment)  # noqa: S606
    except OSError as error:
        # The supervisor starts the service anew: everything is in order, but nobody serves.
        os.write(2, f"Error: {handed.program[0]} cannot be run: {error.strerror}.\n".encode())
        os._exit(EXIT_FAILED)


def _environment() -> dict[str, str]:
    """This one's, as it was before a frozen program's bootloader changed it."""
    found: Mapping[str, str] = os.environ
    if not getattr(sys, "frozen", False):
        return dict(found)
    kept = {k: v for k, v in found.items() if not k.startswith("LD_LIBRARY_PATH")}
    if "LD_LIBRARY_PATH_ORIG" in found:
        kept["LD_LIBRARY_PATH"] = found["LD_LIBRARY_PATH_ORIG"]
    # PyInstaller: what follows is a program of its own, and no child that shares our files.
    return {**kept, "PYINSTALLER_RESET_ENVIRONMENT": "1"}


def _open_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/dev/fd")]
    except OSError:  # a chroot without /dev; Python opens none that are inherited
        return []


def _number(sockets: Sequence[socket.socket]) -> None:
    """Give the sockets the numbers from FIRST_FD on, and let no other descriptor be inherited."""
    import fcntl  # not where there is no restart either

    free = FIRST_FD + len(sockets)
    moved = []
    for each in sockets:  # first out of the way of these numbers
        fd = each.detach()
        moved.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, free))
        os.close(fd)
    for fd in _open_descriptors():
        if fd >= FIRST_FD:
            with suppress(OSError):  # that of the listing itself
                os.set_inheritable(fd, False)
    for number, fd in enumerate(moved, start=FIRST_FD):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)
