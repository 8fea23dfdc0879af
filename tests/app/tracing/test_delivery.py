"""The queue and the task that empties it, with a real collector and spans that are numbers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.tracing.delivery import BATCH_SPANS_MAX, QUEUE_FULL, REFUSED, SENT, SHUTDOWN, Delivery
from app.tracing.settings import Settings
from tests.upstreams.serving import Asked, Reply, Serving

QUEUE = 256


class Numbers:
    """Spans as a list of numbers; one that is no number cannot be written."""

    def encode(self, spans: Sequence[Any]) -> bytes:
        return ",".join(str(int(each)) for each in spans).encode()

    def rejected(self, body: bytes) -> int:
        return int(body or b"0")


def delivery(url: str, **more: Any) -> Delivery:
    given = {"timeout_s": 5.0, "flush_s": 2.0, "queue_spans_max": QUEUE, **more}
    return Delivery(
        Settings(
            url=url,
            shown="there",
            headers={},
            service_name="t",
            sample_ratio=1.0,
            trust_callers=False,
            **given,
        ),
        Numbers(),
    )


@asynccontextmanager
async def collector(status: int = 200, body: bytes = b"") -> AsyncIterator[tuple[str, list[int]]]:
    """Its address, and the numbers that it took."""
    took: list[int] = []

    async def play(asked: Asked, reply: Reply) -> None:
        if status == 200:
            took.extend(map(int, asked.body.split(b",")))
        await reply.answer(status, body)

    async with Serving(play) as serving:
        yield f"{serving.origin}/v1/traces", took


async def test_all_arrive_in_order_and_in_batches() -> None:
    async with collector() as (url, took):
        made = delivery(url)
        made.start()
        for number in range(2 * QUEUE):
            made.put(number)
            if number % 100 == 99:
                await asyncio.sleep(0.05)
        await made.close()
    assert took == list(range(2 * QUEUE))
    assert made.results[SENT] == 2 * QUEUE
    assert (made.lost, made.waiting) == (0, 0)


async def test_a_close_sends_what_is_left_without_waiting_for_the_next_second() -> None:
    async with collector() as (url, took):
        made = delivery(url)
        made.start()
        made.put(7)
        async with asyncio.timeout(1.0):
            await made.close()
        made.put(8)
    assert took == [7]
    assert made.results[SHUTDOWN] == 1


@settings(max_examples=60)
@given(st.integers(0, 3 * QUEUE))
def test_a_full_queue_loses_its_oldest(count: int) -> None:
    async def filled() -> Delivery:
        made = delivery("http://127.0.0.1:1/v1/traces")
        for number in range(count):
            made.put(number)
        return made

    made = asyncio.run(filled())
    assert list(made._queue) == list(range(max(0, count - QUEUE), count))
    assert made.results[QUEUE_FULL] == max(0, count - QUEUE)


async def test_what_the_collector_says_that_it_left_is_counted_once() -> None:
    async with collector(body=b"3") as (url, took):
        made = delivery(url)
        made.start()
        for number in range(10):
            made.put(number)
        await made.close()
    assert len(took) == 10
    assert (made.results[SENT], made.results[REFUSED]) == (7, 3)


@pytest.mark.parametrize("rejected", [b"99999999", b"no number"])
async def test_a_collector_that_says_nonsense_changes_nothing_of_the_sum(rejected: bytes) -> None:
    async with collector(body=rejected) as (url, _):
        made = delivery(url)
        made.start()
        for number in range(10):
            made.put(number)
        await made.close()
    assert made.results.total() == 10


async def test_one_span_that_cannot_be_written_does_not_end_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with collector() as (url, took):
        made = delivery(url)
        made.start()
        for _ in range(BATCH_SPANS_MAX):
            made.put("no number")
        made.put(1)
        await made.close()
    assert took == [1]
    assert made.results[REFUSED] == BATCH_SPANS_MAX
    assert "spans could not be written" in caplog.text


async def test_a_refusal_is_not_tried_again() -> None:
    async with collector(status=400) as (url, _):
        made = delivery(url)
        made.start()
        made.put(1)
        await made.close()
    assert made.results[REFUSED] == 1
