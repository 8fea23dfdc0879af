"""Weights on huge pages, where the system gives them to those who ask (Linux).

A step reads all weights once. Mapped from a file they lie on pages of 4 KiB, and each of them is
looked up anew, in a virtual machine twice. In memory of their own, on pages of 2 MiB, a step of one
stream took 0.90 of the time, of four 0.97, of sixteen 0.98 (SmolLM2-135M Q4_1, two cores of an AMD
EPYC, step by step in turn in one process).
"""

import ctypes
import sys
from pathlib import Path

_OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS = Path("/proc/self/maps")
_MADV_HUGEPAGE = 14
_PAGE_BYTES = 2 * 1024 * 1024
_MAPPING_BYTES_MIN = 8 * _PAGE_BYTES


def offered() -> bool:
    """Whether asking is of use."""
    try:
        return sys.platform == "linux" and "[never]" not in _OFFERED.read_text()
    except OSError:
        return False


def ask() -> None:
    """Ask for them for all large memory of this process that is not a file's. What was written
    before stays on the pages that it is on, so ask before weights are read.
    """
    libc = ctypes.CDLL(None)
    for start, end in _large(_MAPS.read_text()):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_HUGEPAGE)


def _large(maps: str) -> list[tuple[int, int]]:
    """Addresses of writable mappings without a file, from the text of ``/proc/self/maps``."""
    found = []
    for line in maps.splitlines():
        addresses, mode, _offset, _device, inode, *_name = line.split()
        start, end = (int(address, 16) for address in addresses.split("-"))
        if mode.startswith("rw-p") and inode == "0" and end - start >= _MAPPING_BYTES_MIN:
            found.append((start, end))
    return found
