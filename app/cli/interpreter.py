"""How the process is set for serving."""

import gc
import sys
from contextlib import suppress


def open_more_files() -> None:
    """As many files and connections as the system allows: the usual soft limit of 1,024 would be
    used up by 500 streams, which have a connection on either side."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(OSError, ValueError):  # macOS says "unlimited" and means less
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def let_go_less() -> None:
    """Look for cycles less often, and let threads take the interpreter away less often: once, when
    everything that lives long exists."""
    # What exists now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # Calls leave few cycles behind; looking for them every 700 objects costs more than they.
    gc.set_threshold(50_000, 20, 100)
    # The event loop has almost all of the work, and lets go of the interpreter at every turn;
    # threads that wake up for a moment need not take it away in the middle of one.
    sys.setswitchinterval(0.02)
