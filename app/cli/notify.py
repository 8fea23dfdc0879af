"""What a supervisor is told about the service: systemd's notification protocol, ``sd_notify(3)``.

A datagram of ``NAME=value`` lines to the socket that ``$NOTIFY_SOCKET`` names. Without that
variable nothing is sent. The variables are taken out of the environment, so that engines and other
children cannot speak in the service's name; only the program that takes this one's place gets them.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager

log = logging.getLogger("turnpike.notify")
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
# While one program takes another's place nobody answers the watchdog; a migration may take long.
_HAND_OVER_WATCHDOG_SECONDS = 1800
# For engines and the ledger to end in order, once no call runs any more.
_AFTER_DRAIN_SECONDS = 60


def goes_to_journal(environment: Mapping[str, str]) -> bool:
    """Whether what is printed is kept in systemd's journal, which others may read.

    ``$JOURNAL_STREAM`` is the device and inode of that stream, ``systemd.exec(5)``.
    """
    try:
        stream = os.fstat(1)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


class Notifier:
    """Says how the service is; does nothing where nobody asked to be told."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take the variables out of ``environment``."""
        self._taken = {name: environment.pop(name) for name in _VARIABLES if name in environment}
        self._address = _address(self._taken.get("NOTIFY_SOCKET", ""))
        self._failed = False
        self.watchdog_seconds = _watchdog_seconds(self._taken)

    def environment(self) -> dict[str, str]:
        """What was taken, for the program that takes this one's place."""
        return dict(self._taken)

    def tell(self, **fields: str | int) -> None:
        """Send one message, such as ``tell(READY=1, STATUS="serves")``. It never raises: a
        supervisor that does not listen is no reason to serve nobody."""
        if self._address is None:
            return
        lines = "\n".join(f"{name}={_one_line(value)}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto(lines.encode(), self._address)
        except OSError as error:
            if not self._failed:
                log.warning("the supervisor's NOTIFY_SOCKET cannot be written to: %s", error)
            self._failed = True

    def ready(self, status: str, *, handed_over: bool = False) -> None:
        """Calls are served from now on. ``handed_over``: another program was here before."""
        fields: dict[str, str | int] = {"READY": 1, "STATUS": status}
        if handed_over:
            fields["MAINPID"] = os.getpid()
            if "WATCHDOG_USEC" in self._taken:
                fields["WATCHDOG_USEC"] = self._taken["WATCHDOG_USEC"]
        self.tell(**fields)

    @contextmanager
    def reloading(self, status: str) -> Iterator[None]:
        """Around a new reading of the configuration, however that ends."""
        self.tell(RELOADING=1, MONOTONIC_USEC=_monotonic_usec(), STATUS="reads its configuration")
        try:
            yield
        finally:
            self.tell(READY=1, STATUS=status)

    def stopping(self, seconds_max: float) -> None:
        """No new calls; those that run get so long to end."""
        self.tell(
            STOPPING=1,
            STATUS="lets running calls end",
            EXTEND_TIMEOUT_USEC=round((seconds_max + _AFTER_DRAIN_SECONDS) * 1e6),
        )

    def handing_over(self, seconds_max: float) -> None:
        """Another program takes this one's place; the running calls get so long to end."""
        fields: dict[str, str | int] = {
            "RELOADING": 1,
            "MONOTONIC_USEC": _monotonic_usec(),
            "STATUS": "lets running calls end before it is started anew",
            "EXTEND_TIMEOUT_USEC": round((seconds_max + _HAND_OVER_WATCHDOG_SECONDS) * 1e6),
        }
        if "WATCHDOG_USEC" in self._taken:
            fields["WATCHDOG_USEC"] = round(_HAND_OVER_WATCHDOG_SECONDS * 1e6)
        self.tell(**fields)

    async def keep_watchdog(self, alive: Callable[[], bool]) -> None:
        """Answer the watchdog for as long as ``alive()`` and this event loop turns: the silence of
        a loop that hangs is what makes the supervisor start the service anew."""
        if self.watchdog_seconds is None:
            return
        said = False
        while True:
            if alive():
                self.tell(WATCHDOG=1)
            elif not said:
                said = True
                log.error("nothing can be written any more: the watchdog gets no answer from now")
            await asyncio.sleep(self.watchdog_seconds / 2)


def is_meant(pid: str | None) -> bool:
    """Whether a variable that names a process id means this process; without one it does."""
    return pid is None or pid == str(os.getpid())


def _address(name: str) -> str | None:
    if name.startswith("@"):  # Linux's abstract names begin with a zero byte
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _watchdog_seconds(variables: MutableMapping[str, str]) -> float | None:
    usec = variables.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or int(usec) == 0 or not is_meant(variables.get("WATCHDOG_PID")):
        return None
    return int(usec) / 1e6


def _one_line(value: str | int) -> str:
    return " ".join(str(value).split())


def _monotonic_usec() -> int:
    return time.monotonic_ns() // 1000
