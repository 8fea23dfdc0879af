"""What a server holds, looked at from outside: /proc and its own /metrics."""

import asyncio
import os
import re
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import httpx

from tests.appliance import RunningAppliance

MIB = 1024 * 1024
EVERY_S = 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """``at_s`` after the begin; sizes in MiB; slots of the local engine count as running."""

    at_s: float
    rss_mib: float
    fds: int
    threads: int
    tasks: int
    wal_mib: float
    calls_running: int
    holds_open: int
    local_running: int
    children: int

    def told(self) -> dict[str, float]:
        """For a report."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


async def sample(running: RunningAppliance, at_s: float) -> Sample:
    """One look. The connection for it is one of the descriptors, every time."""
    proc = Path("/proc") / str(running.process.pid)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        answer = await http.get(f"{running.base_url}/metrics")
        told = _gauges(answer.text)
        fds, threads = len(os.listdir(proc / "fd")), len(os.listdir(proc / "task"))
    wal = running.data_dir / "turnpike.db-wal"
    return Sample(
        at_s=at_s,
        rss_mib=int((proc / "statm").read_text().split()[1]) * _PAGE_BYTES / MIB,
        fds=fds,
        threads=threads,
        tasks=int(told.get("turnpike_tasks", 0)),
        wal_mib=wal.stat().st_size / MIB if wal.exists() else 0.0,
        calls_running=int(told["turnpike_calls_running"]),
        holds_open=int(told["turnpike_holds_open"]),
        local_running=int(
            told.get("turnpike_local_calls_running", 0)
            + told.get("turnpike_local_sequences_running", 0)
            + told.get("turnpike_local_calls_waiting", 0)
        ),
        children=len((proc / "task" / proc.name / "children").read_text().split()),
    )


def _gauges(text: str) -> dict[str, float]:
    """Each metric, summed over its labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if (match := re.match(r"(\w+)(?:\{.*\})? ([-+.\deE]+)$", line)) is not None:
            found[match[1]] = found.get(match[1], 0.0) + float(match[2])
    return found


def slope_per_min(samples: list[Sample]) -> float:
    """MiB of memory a minute that are never given back: the line (least squares) through the least
    that each sample and all after it show. What a burst of requests takes and returns is no leak.
    """
    if len(samples) < 3:
        return 0.0
    times = [each.at_s / 60 for each in samples]
    least = accumulate((each.rss_mib for each in reversed(samples)), min)
    sizes = list(least)[::-1]
    time, size = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((t - time) ** 2 for t in times)
    together = sum((t - time) * (s - size) for t, s in zip(times, sizes, strict=True))
    return together / spread if spread else 0.0


async def quiet(
    running: RunningAppliance, seconds: float, *, patience_s: float, at_s: float
) -> Sample:
    """Wait until nothing is under way, then for so long, and look.

    Where it never becomes quiet, the last look says what is still there.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < patience_s:
        found = await sample(running, at_s)
        if not (found.calls_running or found.holds_open or found.local_running):
            break
        await asyncio.sleep(1.0)
    await asyncio.sleep(seconds)
    return await sample(running, at_s + loop.time() - began)
