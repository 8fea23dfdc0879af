"""Promise: a collector that is down, slow or hostile costs spans, which are counted, and nothing
else: no call waits or fails for it, no memory grows, and the log says it once."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.appliance import MOCK_PROVIDER
from tests.journeys.test_metrics import scrape
from tests.journeys.traced import ask, is_well_formed, log_of, started
from tests.upstreams.collector import PlayedCollector
from tests.upstreams.provider import PlayedProvider


@pytest.mark.parametrize(
    "fault",
    [
        *("down", "error", "refused", "unavailable", "redirect", "garbage", "no_http", "reset"),
        *("hang", "drip", "drip_head", "endless"),
    ],
)
async def test_no_collector_holds_up_a_call_or_an_end(tmp_path: Path, fault: str) -> None:
    collector = PlayedCollector(always=fault)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(collector)
        if fault == "down":
            await stack.aclose()
        played = await stack.enter_async_context(PlayedProvider())
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        more = "timeout_seconds = 0.4\nqueue_spans_max = 256\nflush_seconds_max = 0.5"
        async with started(tmp_path, collector, config, more) as (running, key):
            for _ in range(4):
                began_s = time.monotonic()
                for _ in range(5):
                    assert (await ask(running, key)).status_code == 200
                assert time.monotonic() - began_s < 10
                await asyncio.sleep(0.4)
            found = await scrape(running)
            began_s = time.monotonic()
            assert await asyncio.to_thread(running.stop) == 0
            assert time.monotonic() - began_s < 8
    log = log_of(tmp_path)
    assert "SECRET-OF-COLLECTOR" not in log
    assert "Traceback" not in log
    if fault in {"garbage", "endless"}:  # it says that it took them, and much that means nothing
        assert (found.of("trace_spans_total", result="sent") or 0) > 0
        return
    assert log.count("spans cannot be delivered") == 1
    assert log.count("spans were not delivered") == 1
    assert found.of("trace_spans_total", result="sent") == 0
    assert collector.spans == []


async def test_what_a_collector_missed_comes_once_it_is_back(tmp_path: Path) -> None:
    async with PlayedCollector() as collector, PlayedProvider() as played:
        collector.faults.extend(["unavailable", "reset", "partly"])
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        async with started(tmp_path, collector, config) as (running, key):
            assert (await ask(running, key)).status_code == 200
            await collector.until(lambda: not collector.faults)
            assert (await ask(running, key)).status_code == 200
            (call,) = await collector.calls(1)  # the first one's went with the partly taken
            found = await scrape(running)
    is_well_formed(call)
    assert found.of("trace_spans_total", result="refused") == 2
    assert found.of("trace_spans_total", result="unreachable") == 0
    log = log_of(tmp_path)
    assert log.count("spans cannot be delivered") == log.count("are delivered to") == 1


async def test_an_outage_costs_the_oldest_spans_and_no_memory(tmp_path: Path) -> None:
    async with PlayedCollector("unavailable") as collector, PlayedProvider() as played:
        config = MOCK_PROVIDER.format(base_url=played.base_url)
        async with started(tmp_path, collector, config, "queue_spans_max = 256") as (running, key):
            for _ in range(120):  # five spans each
                assert (await ask(running, key)).status_code == 200
            found = await scrape(running)
            lost = found.of("trace_spans_total", result="queue_full") or 0
            assert (found.of("trace_spans_waiting") or 0) <= 256
            assert 600 - 256 - 128 <= lost <= 600 - 256
            last = (await ask(running, key)).headers["Inference-Id"]
            collector.always = "normal"
            await collector.until(
                lambda: any(
                    each.attributes.get("turnpike.request_id") == last for each in collector.spans
                )
            )
