"""Weights in memory of their own: when, and what the system makes of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from local_runtime.engines.contract import EngineSpec
from local_runtime.engines.llama import hugepages
from local_runtime.engines.llama.sizing import Free, size_of
from local_runtime.store.gguf import read_header
from tests.local_runtime.calls import smollm_path

HEADER = read_header(smollm_path())
SPEC = EngineSpec(engine="llama", path=str(smollm_path()))
MAPS = """\
559cf7b63000-559cf8b63000 rw-p 00000000 00:00 0                          [heap]
7f57a8000000-7f57b0000000 rw-p 00000000 00:00 0
7f57b0000000-7f57b8000000 ---p 00000000 00:00 0
7f57c0000000-7f57c0100000 rw-p 00000000 00:00 0
7f57d0000000-7f57d8000000 rw-p 00000000 fe:00 4711                       /some/data file
7f57d8000000-7f57e0000000 rw-s 00000000 00:01 12                         /dev/zero (deleted)
7f57e0000000-7f57e8000000 r--p 00000000 00:00 0
"""
LOAD = """
import re, sys
from pathlib import Path
from local_runtime.engines.llama import native

native.start_backend()
model = native.Model(sys.argv[1], lambda fraction: None, copied=sys.argv[2] == "copied")
print(re.search(r"AnonHugePages: +([0-9]+)", Path("/proc/self/smaps_rollup").read_text())[1])
"""


def test_only_large_memory_of_its_own_is_asked_for() -> None:
    assert hugepages._large(MAPS) == [
        (0x559CF7B63000, 0x559CF8B63000),
        (0x7F57A8000000, 0x7F57B0000000),
    ]


@pytest.mark.parametrize(
    ("free", "copied"),
    [
        (Free(host_bytes=2 * HEADER.file_bytes), True),
        (Free(host_bytes=2 * HEADER.file_bytes - 1), False),  # the file would leave the cache
        (Free(host_bytes=None), False),
        (Free(host_bytes=2 * HEADER.file_bytes, device_bytes=1 << 40), False),
    ],
)
def test_weights_are_copied_where_they_fit_twice(free: Free, copied: bool) -> None:
    assert size_of(HEADER, SPEC, free).copied is copied


@pytest.mark.skipif(not hugepages.offered(), reason="this system has none to offer")
@pytest.mark.parametrize("how", ["copied", "mapped"])
def test_weights_lie_on_huge_pages(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(smollm_path()), how],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[4],
    )
    on_huge_pages = int(done.stdout) * 1024
    if how == "copied":
        assert on_huge_pages > 0.8 * HEADER.file_bytes
    else:
        assert on_huge_pages < 0.2 * HEADER.file_bytes
