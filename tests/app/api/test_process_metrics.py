"""How late the event loop is, as it is when something holds it up."""

import asyncio
import time

from app.api.loop_watch import LoopWatch
from app.api.process_metrics import LAG_BUCKETS_MS, LoopLag, ProcessMetrics


async def test_a_loop_that_was_held_up_is_seen() -> None:
    lag = LoopLag()
    lag.start()
    await asyncio.sleep(0.5)
    time.sleep(1.0)  # noqa: ASYNC251  # the very thing that is measured
    async with asyncio.timeout(10):
        while not sum(lag.histogram.counts):  # noqa: ASYNC110  # it has no event
            await asyncio.sleep(0.01)
    lag.stop()
    held_up = lag.histogram.counts[LAG_BUCKETS_MS.index(250) + 1 :]
    assert sum(held_up) == sum(lag.histogram.counts) == 1
    await asyncio.sleep(1.2)
    assert sum(lag.histogram.counts) == 1  # it stopped


async def test_lost_lines_are_asked_for_when_scraped() -> None:
    lost = 0
    metrics = ProcessMetrics(LoopLag(), LoopWatch(), lambda: lost)
    for lost in (0, 3):
        (family,) = (each for each in metrics.collect() if each.name == "turnpike_log_lines_lost")
        assert family.samples[0].value == lost


async def test_tasks_are_counted_as_they_come_and_go() -> None:
    def tasks() -> float:
        collected = ProcessMetrics(LoopLag(), LoopWatch(), lambda: 0).collect()
        (family,) = (each for each in collected if each.name == "turnpike_tasks")
        return float(family.samples[0].value)

    before = tasks()
    done = asyncio.Event()
    waiting = [asyncio.ensure_future(done.wait()) for _ in range(7)]
    assert tasks() == before + 7
    done.set()
    await asyncio.gather(*waiting)
    assert tasks() == before
