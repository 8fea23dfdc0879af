"""How the interpreter is set for serving: once, when everything that lives long exists."""

import gc
import sys


def let_go_less() -> None:
    """Look for cycles less often, and let threads take the interpreter away less often."""
    # What exists now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # Calls leave few cycles behind; looking for them every 700 objects costs more than they.
    gc.set_threshold(50_000, 20, 100)
    # The event loop has almost all of the work, and lets go of the interpreter at every turn;
    # threads that wake up for a moment need not take it away in the middle of one.
    sys.setswitchinterval(0.02)
