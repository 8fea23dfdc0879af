"""Where the process's log goes, at which level and in which form; a reload can change all three."""

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.config import Config
from app.logs.file import LogFile
from app.logs.formats import FORMATS

# The addresses that httpx2 logs while a model is pulled are signed, and as good as a key.
_NOISY = (
    "httpx",
    "httpcore",
    "httpx2",
    "httpcore2",
    "apscheduler",
    "uvicorn",
    "aiosqlite",
    "asyncio",
)
CALLS = "turnpike.calls"
_log = logging.getLogger("turnpike.logs")


class LogOutput:
    """The root logger's only handler. One for a process."""

    def __init__(self) -> None:
        self._handler: logging.Handler | None = None
        self._lost_before = 0

    @property
    def lost(self) -> int:
        """Lines that could not be written to a log file since the start."""
        current = self._handler.lost if isinstance(self._handler, LogFile) else 0
        return self._lost_before + current

    def take_over(self, config: Config) -> None:
        """Log as the configuration says from now on. Raises ConfigError."""
        self.prepare(config)()

    def prepare(self, config: Config) -> Callable[[], None]:
        """Open what the configuration names; what is returned puts it into use, and cannot fail.

        A file is opened anew even where its name stays: it may have been moved away to be kept.
        Raises ConfigError; then everything stays as it is.
        """
        handler = _handler(config)
        handler.setFormatter(FORMATS[config.logs.format]())
        return lambda: self._put_into_use(handler, config)

    def _put_into_use(self, handler: logging.Handler, config: Config) -> None:
        self._lost_before = self.lost
        before, self._handler = self._handler, handler
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(config.server.log_level.upper())
        for noisy in _NOISY:
            logging.getLogger(noisy).setLevel(logging.WARNING)
        calls = logging.NOTSET if config.logs.calls else logging.WARNING
        logging.getLogger(CALLS).setLevel(calls)
        if before is not None:
            before.close()


def _handler(config: Config) -> logging.Handler:
    logs = config.logs
    if logs.file is None:
        return logging.StreamHandler(sys.stderr)
    path = Path(logs.file).expanduser()
    return LogFile(path, bytes_max=logs.file_bytes_max, kept=logs.files_kept)


def log_what_nobody_caught() -> None:
    """Errors of threads and finalizers, and warnings, become log lines too; and an error in logging
    itself is nobody's: no traceback of it goes to standard error."""
    logging.raiseExceptions = False
    logging.captureWarnings(capture=True)
    threading.excepthook = _of_a_thread
    sys.unraisablehook = _of_a_finalizer


def _of_a_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread is not None else "a thread"
        _log.error("%s died", name, exc_info=args.exc_value)


def _of_a_finalizer(args: Any) -> None:
    _log.error(
        "%s", args.err_msg or "an error where nobody could catch it", exc_info=args.exc_value
    )
