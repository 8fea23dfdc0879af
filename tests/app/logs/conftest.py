"""Logging as it was before, after each test that sets it up."""

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from app.logs.output import CALLS


@pytest.fixture
def own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = threading.excepthook, sys.unraisablehook
    raises = logging.raiseExceptions
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger(CALLS).setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    logging.raiseExceptions = raises
    threading.excepthook, sys.unraisablehook = hooks
