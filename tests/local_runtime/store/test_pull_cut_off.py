"""Pulls that are cut off, stopped, killed, or run out of disk: what came is kept."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from local_runtime.store.catalog import Store
from local_runtime.store.hub import PullStopped
from local_runtime.store.names import StoreName
from local_runtime.store.pull import PullProgress
from tests.local_runtime.store import gguf_files
from tests.local_runtime.store.pulling import BIG, REPO, brought, hub, leftovers, reached
from tests.upstreams.hub import PlayedHub

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_line_is_taken_up_where_it_was_cut(tmp_path: Path, reset: bool) -> None:
    async with hub(files={"t-Q4_0.gguf": gguf_files.whole(1_000_000)}) as played:
        played.faults.cut_after, played.faults.cuts, played.faults.reset = 2_500_000, 1, reset
        manifest = await brought(played, tmp_path)
        ranges = [a.headers["range"] for a in played.asked if "range" in a.headers]
        assert ranges and all(each != "bytes=0-" for each in ranges)
    assert Store(tmp_path).weights_path(manifest).stat().st_size == manifest.bytes


async def test_a_server_without_ranges_sends_all_again(tmp_path: Path) -> None:
    async with hub(files={"t-Q4_0.gguf": gguf_files.whole(1_000_000)}) as played:
        played.faults.cut_after, played.faults.cuts = 2_500_000, 1
        played.faults.no_ranges = True
        manifest = await brought(played, tmp_path)
    assert Store(tmp_path).weights_path(manifest).stat().st_size == manifest.bytes


async def test_two_pulls_at_once_are_one(tmp_path: Path) -> None:
    told: list[PullProgress] = []
    async with hub(files={"t-Q4_0.gguf": BIG}) as played:
        played.faults.pace_s = 0.02
        first = asyncio.create_task(brought(played, tmp_path))
        await asyncio.sleep(0.15)
        second = asyncio.create_task(brought(played, tmp_path, told=told))
        assert await first == await second
        assert played.sent_bytes == len(BIG)
    assert "waiting" in {progress.stage for progress in told}


async def test_stopping_keeps_what_came(tmp_path: Path) -> None:
    stop = threading.Event()
    content = gguf_files.whole(1_500_000)
    async with hub(files={"t-Q4_0.gguf": content}) as played:
        played.faults.pace_s = 0.02
        pulling = asyncio.create_task(brought(played, tmp_path, stop=stop))
        await reached(lambda: played.sent_bytes >= 2_500_000)
        stop.set()
        with pytest.raises(PullStopped, match="what came is kept"):
            await pulling
        (part,) = leftovers(tmp_path)
        had = part.stat().st_size
        assert had >= 1_000_000
        played.faults.pace_s = 0
        sent = played.sent_bytes
        await brought(played, tmp_path)
        assert played.sent_bytes - sent <= len(content) - had


PULL = """
import sys
from pathlib import Path
from local_runtime.store.catalog import Store
from local_runtime.store.choice import NothingToPull
from local_runtime.store.hub import HubSettings
from local_runtime.store.names import parse_hub
from local_runtime.store.pull import pull
pull(Store(Path(sys.argv[1])), HubSettings(sys.argv[2]), parse_hub(sys.argv[3]))
print("done", "hf_xet" in sys.modules)
"""


def in_a_process(folder: Path, played: PlayedHub) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, str(folder), played.endpoint, f"hf:{REPO}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


async def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    content = gguf_files.whole(1_500_000)
    async with hub(files={"t-Q4_0.gguf": content}) as played:
        played.faults.pace_s = 0.02
        child = in_a_process(tmp_path, played)
        await reached(
            lambda: any(p.stat().st_size >= 2_000_000 for p in tmp_path.glob("partial/*.part"))
        )
        os.kill(child.pid, signal.SIGKILL)
        await asyncio.to_thread(child.communicate)
        assert Store(tmp_path).every() == []
        (part,) = leftovers(tmp_path)
        had = part.stat().st_size
        played.faults.pace_s, sent = 0, played.sent_bytes
        again = in_a_process(tmp_path, played)
        out, err = await asyncio.to_thread(again.communicate)
        assert (again.returncode, out) == (0, "done False\n"), err
        assert played.sent_bytes - sent <= len(content) - had
    manifest = Store(tmp_path).get(StoreName(REPO))
    assert Store(tmp_path).weights_path(manifest).read_bytes() == content


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
async def test_a_full_disk_is_said_and_what_came_is_kept(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write itself fails."""
    content = gguf_files.whole(1_500_000)
    limits = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, resource.RLIM_INFINITY))\n"
    )
    limited = PULL.replace("import sys\n", limits, 1)
    async with hub(files={"t-Q4_0.gguf": content}) as played:
        command = [sys.executable, "-c", limited, str(tmp_path), played.endpoint, f"hf:{REPO}"]
        ran = await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert "PullFailed: the disk is full" in ran.stderr
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
        sent = played.sent_bytes
        await brought(played, tmp_path)
        assert played.sent_bytes - sent < len(content)
