"""What memory an engine's process may take at most, and how one that wanted more is told.

The cap is on private memory that can be written to (``RLIMIT_DATA``, getrlimit(2), since Linux
4.7): the heap, the cache, weights that were copied. Not on addresses as such (``RLIMIT_AS``):
weights that are mapped from a file cost nothing that the system could not drop, and drivers of
accelerators reserve far more addresses than they ever use. It is a net against a leak or a hostile
file, not a fit: who may be in memory is decided by ``lifecycle/residency.py``, before.

Linux only. macOS has no such limit (its RLIMIT_DATA bounds next to nothing), and neither has
Windows without a job object; there an engine can take all there is.
"""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from local_runtime.engines.llama.libraries import accelerators

Setting = int | Literal["auto", "off"]
MARGIN_SHARE = 0.25
MARGIN_BYTES = 1 << 30
"""For what no estimate knows: Python, the allocator's own losses, requests and their pictures."""
PICTURE_BYTES = 2 << 30
"""40 million pixels are 160 MB, which decoders hold several times; and the projector's own work."""
MEMORY_EXIT = 71  # EX_OSERR
_STACK_BYTES = 8 << 20  # counted whole, however little of it is touched
_THREADS_PER_CORE = 2
_DEVICES = ("/dev/kfd", "/dev/nvidiactl", "/dev/dri/renderD128")
# As Python, C++, glibc and llama.cpp put it.
_COMPLAINTS = (
    "memoryerror",
    "std::bad_alloc",
    "cannot allocate memory",
    "out of memory",
    "insufficient memory",
    "failed to allocate",
    "unable to allocate",
    "can't start new thread",
)


class MemoryCap(msgspec.Struct, frozen=True, kw_only=True):
    """``bytes_max``: what the process may take, None for no limit. ``on_hit`` is called when it
    ended because it, or the system, had no more.
    """

    bytes_max: int | None = None
    on_hit: Callable[[], None] = lambda: None


def accelerated() -> bool:
    """Whether drivers of accelerators may be at work: there are such devices, or a llama.cpp that
    was built for some.
    """
    return bool(accelerators()) or any(map(os.path.exists, _DEVICES))


def cap_bytes(
    setting: Setting, needs_bytes: int, *, sees: bool = False, cores: int | None = None
) -> int | None:
    """What a process may take whose model needs so much, guessed or measured, whichever is more:
    a quarter and a GiB above it, room for its threads' stacks, and, if it ``sees``, for a picture
    of the largest size while that is decoded. None: no limit.

    "auto" sets none where there are accelerators: what their drivers take of ordinary memory is
    in no estimate.
    """
    if setting == "off":
        return None
    if isinstance(setting, int):
        return setting
    if accelerated():
        return None
    stacks = _THREADS_PER_CORE * (cores or os.cpu_count() or 1) * _STACK_BYTES
    pictures = PICTURE_BYTES if sees else 0
    return pictures + needs_bytes + int(needs_bytes * MARGIN_SHARE) + MARGIN_BYTES + stacks


def hold_to(bytes_max: int) -> bool:
    """This process takes no more from now on, and cannot raise that. Whether it is in force."""
    if sys.platform != "linux":
        return False
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most != resource.RLIM_INFINITY:
        bytes_max = min(bytes_max, most)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (bytes_max, bytes_max))
    except (OSError, ValueError):
        return False
    return True


def complains_of_memory(lines: Iterable[str]) -> bool:
    """Whether the last that a process said is that it got no memory."""
    return any(words in line.lower() for line in lines for words in _COMPLAINTS)


def kernel_kills(root: Path = Path("/")) -> int:
    """How often the kernel ended a process for want of memory since the machine was started; 0
    where it does not say.
    """
    try:
        text = (root / "proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    counts = (line.split() for line in text.splitlines())
    return next((int(count) for name, count in counts if name == "oom_kill"), 0)


def explained(bytes_max: int | None) -> str:
    """Why a process ended that hit its cap, and what an operator does about it."""
    if bytes_max is None:
        return f"it ran out of memory. {_LESS}, or free memory on this machine"
    return (
        f"it wanted more than the {bytes_max / (1 << 20):,.0f} MiB of memory that its process may"
        " have."
        f" {_LESS}, or raise process_bytes_max"
    )


def explained_by_kernel() -> str:
    """The same where the system had no more for anybody."""
    return (
        "the kernel ended it because memory ran out on this machine or in its control group."
        f" {_LESS}, lower local.memory_bytes_max, or free memory"
    )


_LESS = "Give the model a smaller context_length or parallel"
