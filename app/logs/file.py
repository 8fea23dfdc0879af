"""A log file: 0600, put aside when it is full, and never a reason for a call to fail."""

import contextlib
import errno
import io
import logging
import os
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from app.errors import ConfigError

MODE = 0o600
COMPLAIN_EVERY_S = 60.0


class LogFile(RotatingFileHandler):
    """Appends whole lines to a file; ``PATH.1`` is the one put aside last.

    What cannot be written, on a full disk above all, is counted in ``lost`` and said on standard
    error once a minute. The next line that can be written is.
    """

    def __init__(self, path: Path, *, bytes_max: int, kept: int) -> None:
        """Raises ConfigError where the file cannot be written to."""
        self.lost = 0
        self._written = 0
        self._cut = False
        self._complain_at_s = self._stay_until_s = 0.0
        try:
            check_place(path)
            super().__init__(path, maxBytes=bytes_max, backupCount=kept, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"logs.file: {path} cannot be written: {error.strerror or error}. Give the folder"
                " to the user that runs the server, or choose another with `file` under [logs]."
            ) from error

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line; put the file aside first where it would grow too long."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            if self._written + len(line) > self.maxBytes:
                self._put_aside(len(line))
            if self.stream is None:
                self.stream = self._open()
            self._append(self.stream.fileno(), line)
        except Exception:  # noqa: BLE001  # of any kind: logging must not take down who logs
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        """Count the line as lost, and say so on standard error, but not for each."""
        self.lost += 1
        now_s = time.monotonic()
        if now_s < self._complain_at_s:
            return
        self._complain_at_s = now_s + COMPLAIN_EVERY_S
        with contextlib.suppress(OSError, ValueError):  # there is nobody left to tell then
            sys.stderr.write(
                f"turnpike: {self.lost} log lines could not be written to {self.baseFilename}:"
                f" {sys.exc_info()[1]}\n"
            )

    def _open(self) -> io.TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, MODE)
        self._written = os.fstat(descriptor).st_size
        return io.TextIOWrapper(os.fdopen(descriptor, "ab", buffering=0), encoding="utf-8")

    def _append(self, descriptor: int, line: bytes) -> None:
        """All of it or, where the disk ends, as little as fits: then the next one begins anew."""
        whole = b"\n" + line if self._cut else line
        written = os.write(descriptor, whole)
        self._written += written
        self._cut = written < len(whole) if written else self._cut
        if written < len(whole):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put_aside(self, coming_bytes: int) -> None:
        """Begin a new file, unless this one was emptied by somebody else, or cannot be renamed:
        then it goes on, and renaming is tried again in a minute."""
        if self.stream is not None:
            self._written = os.fstat(self.stream.fileno()).st_size
        fits = not self._written or self._written + coming_bytes <= self.maxBytes
        if fits or time.monotonic() < self._stay_until_s:
            return
        try:
            self.doRollover()
        except OSError:
            self._stay_until_s = time.monotonic() + COMPLAIN_EVERY_S


def check_place(path: Path) -> None:
    """Raise ConfigError where the folder is missing or what has the name is no plain file."""
    if not path.parent.is_dir():
        raise ConfigError(
            f"logs.file: there is no folder {path.parent}. Make it, for the user that runs the"
            " server, or choose another with `file` under [logs]."
        )
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"logs.file: {path} is not a file. Without `file` under [logs] the log goes to standard"
            " error."
        )
