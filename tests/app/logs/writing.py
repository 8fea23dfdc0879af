"""Log records as callers and libraries make them."""

import logging
import sys
from typing import Any


def record(
    message: str, *args: object, level: int = logging.INFO, **extra: Any
) -> logging.LogRecord:
    """As ``logging`` would make it, with the exception that is being handled."""
    logger = logging.getLogger("turnpike.test")
    info = sys.exc_info() if sys.exc_info()[0] else None
    return logger.makeRecord("turnpike.test", level, "f", 1, message, args, info, "g", extra)
