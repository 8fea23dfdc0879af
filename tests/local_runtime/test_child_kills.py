"""Promise: a child that is killed in mid-stream takes nothing along. Every open call ends at once,
with its exact bill; the next one is answered; no slot, task, descriptor or zombie stays behind.

``TURNPIKE_CHILD_KILLS`` sets how many kills (100 for the long run), ``TURNPIKE_SEED`` replays one.
"""

import asyncio
import os
import random
import signal
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from local_runtime.adapter import LocalAdapter
from local_runtime.runtime import LocalModelSpec
from plugins.contract import AdapterError, Chunk, FailureKind, Started, UsageReport
from tests.local_runtime.calls import MODEL, SMOLLM_SOURCE, answer, order, words
from tests.local_runtime.sharing import sharing, until

KILLS = int(os.environ.get("TURNPIKE_CHILD_KILLS", "6"))
STREAMS = 4


def chance() -> random.Random:
    seed = int(os.environ.get("TURNPIKE_SEED", time.time_ns() % 1_000_000))
    print(f"TURNPIKE_SEED={seed}")
    return random.Random(seed)


def children() -> list[int]:
    """Processes whose parent is this one, zombies included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid():
            found.append(int(path.parent.name))
    return found


def held() -> tuple[int, int]:
    """Open descriptors and running tasks."""
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())


class Broken:
    """A stream that was read until its end, and how it ended."""

    def __init__(self, adapter: LocalAdapter, text: str, **params: Any) -> None:
        self.pieces = 0
        self.error: AdapterError | None = None
        self.ended_s = 0.0
        self.done = asyncio.create_task(self._read(adapter, text, params))

    async def _read(self, adapter: LocalAdapter, text: str, params: dict[str, Any]) -> None:
        try:
            async with aclosing(adapter.infer(order(text, stream=True, **params))) as events:
                async for event in events:
                    assert isinstance(event, Started | Chunk | UsageReport)
                    self.pieces += isinstance(event, Chunk)
        except AdapterError as error:
            self.error = error
        self.ended_s = time.monotonic()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
@pytest.mark.timeout(120 + 20 * KILLS)
@pytest.mark.parametrize("real", [False, True], ids=["scripted", "real"])
async def test_killed_in_mid_stream_leaves_nothing_behind(*, real: bool) -> None:
    rng = chance()
    source = SMOLLM_SOURCE if real else "fake:tokens_per_second=200"
    text = "Count to a thousand, in words." if real else words(900)
    params = {"ignore_eos": True, "max_tokens": 600} if real else {}
    spec = LocalModelSpec(id=MODEL, source=source, context_length=4096)
    async with sharing(spec) as adapter:
        supervisor = adapter.runtime.models[MODEL].supervisor
        billed_ns = (await answer(adapter, order("warm up", max_tokens=1))).usage.compute_ns
        before = held()
        for _ in range(KILLS):
            streams = [Broken(adapter, text, **params) for _ in range(STREAMS)]
            await until(lambda now=streams: all(each.pieces for each in now), 30)
            await asyncio.sleep(rng.uniform(0, 0.2))
            pid = adapter.runtime.status()[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            killed_s = time.monotonic()
            async with asyncio.timeout(10):
                await asyncio.gather(*(each.done for each in streams))
            for each in streams:
                assert each.error is not None and each.error.kind is FailureKind.CRASHED
                assert each.ended_s - killed_s < 2
                usage = each.error.usage
                assert usage is not None and usage.output_tokens >= 1
                assert usage.input_tokens + usage.cache_read_tokens > 0
                assert usage.compute_ns > 0
                billed_ns += usage.compute_ns
            supervisor.restarts.forgive()
            got = await answer(adapter, order("again", max_tokens=4))
            assert got.usage.output_tokens >= 1
            billed_ns += got.usage.compute_ns
            assert pid not in children()  # waited for, no zombie
            assert len(children()) == 1
        status = adapter.runtime.status()[0]
        assert billed_ns == status.busy_ns - status.unbilled_ns  # to the nanosecond, over all lives
        assert (status.crashes, status.calls_running, status.calls_waiting) == (KILLS, 0, 0)
        await until(lambda: held() == before)
    assert children() == []
