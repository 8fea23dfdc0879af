"""Log lines on stderr: time, level, logger, message. Request bodies are never logged."""

import logging
import sys

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


def configure_logging(level: str) -> None:
    """Set up the root logger once; libraries that log every request speak up from warning on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
