"""The local runtime as a provider: the rules of ``plugins/contract.py``, over both placements."""

import asyncio
import os
import signal
import time
from contextlib import aclosing
from typing import Any

import pytest

from local_runtime.adapter import LocalAdapter
from local_runtime.engines.llama.request import SUPPORTED_PARAMS
from local_runtime.lifecycle import restarts
from local_runtime.lifecycle.states import ModelState
from local_runtime.runtime import SEQUENCES_MAX
from plugins.chat import ChatRequest
from plugins.contract import AdapterError, Chunk, FailureKind, InferenceCall, UsageReport
from tests.local_runtime.calls import (
    MODEL,
    SMOLLM_SOURCE,
    answer,
    first_chunk,
    order,
    words,
)
from tests.local_runtime.conftest import PRICE_NANO_USD_PER_SECOND, Serve


async def failure(adapter: LocalAdapter, call: InferenceCall) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        await answer(adapter, call)
    return caught.value


async def test_offers(serve: Serve) -> None:
    adapter = await serve(SMOLLM_SOURCE, preload=False)
    (offer,) = adapter.offers()
    assert (offer.model, offer.provider, offer.upstream_id) == (MODEL, "local", MODEL)
    assert offer.context_length == 8192  # known without loading
    assert offer.price.compute_per_second == PRICE_NANO_USD_PER_SECOND
    assert offer.abort_stops_billing
    assert offer.supported_params == SUPPORTED_PARAMS | {"structured_outputs"}
    assert set(ChatRequest.__struct_fields__) >= SUPPORTED_PARAMS
    assert {"tools", "tool_choice", "parallel_tool_calls", "functions"} <= SUPPORTED_PARAMS
    assert {"reasoning_effort", "reasoning", "chat_template_kwargs"} <= SUPPORTED_PARAMS
    assert not SUPPORTED_PARAMS & {"audio", "prediction", "web_search_options"}
    assert adapter.runtime.status()[0].state is ModelState.COLD


async def test_an_answer(serve: Serve, placement: str) -> None:
    adapter = await serve("fake:", placement=placement)
    got = await answer(adapter, order("one two"))
    assert got.text() == "echo: one two"
    assert got.reason() == "stop"
    assert got.deltas[0].delta.role == "assistant"
    assert all(not isinstance(d.delta.role, str) for d in got.deltas[1:])
    assert (got.usage.input_tokens, got.usage.output_tokens) == (2, 3)
    assert not got.usage.estimated


async def test_two_answers(serve: Serve, placement: str) -> None:
    adapter = await serve("fake:", placement=placement)
    got = await answer(adapter, order("hi", n=2))
    assert [got.text(0), got.text(1)] == ["echo: hi"] * 2
    assert got.usage.output_tokens == 4


async def test_start_does_not_wait_and_calls_do(serve: Serve, placement: str) -> None:
    begun = time.monotonic()
    adapter = await serve("fake:load_seconds=0.3", placement=placement)
    assert time.monotonic() - begun < 0.3
    assert (await answer(adapter, order("early"))).text() == "echo: early"


async def test_a_model_that_takes_too_long_to_load(serve: Serve) -> None:
    adapter = await serve("fake:load_seconds=5", placement="child", cold_wait_s_max=0.2)
    failed = await failure(adapter, order())
    assert failed.kind is FailureKind.LOADING
    assert failed.retry_after_s is not None and failed.retry_after_s >= 1


async def test_a_call_that_does_not_wait_for_the_model(serve: Serve) -> None:
    """It is told at once how long loading takes, and brings it about."""
    adapter = await serve("fake:load_seconds=0.3", placement="inline", preload=False)
    call = order(limits={"wait_for_model": False})
    begun = time.monotonic()
    failed = await failure(adapter, call)
    assert time.monotonic() - begun < 0.2
    assert failed.kind is FailureKind.LOADING
    assert failed.retry_after_s is not None and failed.retry_after_s >= 1
    assert "about 1 s" in failed.message
    async with asyncio.timeout(5):
        while adapter.runtime.status()[0].state is not ModelState.WARM:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await answer(adapter, order("hi", limits={"wait_for_model": False}))).text()


async def test_the_wait_for_a_model_is_not_the_engines(serve: Serve, placement: str) -> None:
    """``first_event_s`` begins when the model is warm."""
    adapter = await serve("fake:load_seconds=0.4", placement=placement)
    got = await answer(adapter, order("late", limits={"first_event_s": 0.3}))
    assert got.text() == "echo: late"


async def test_an_unknown_model(serve: Serve) -> None:
    adapter = await serve("fake:", preload=False)
    call = InferenceCall(
        call_id="c", attempt_id="c-1", upstream_id="no/such", request=order().request, stream=False
    )
    assert (await failure(adapter, call)).kind is FailureKind.NOT_FOUND


async def test_a_full_queue(serve: Serve) -> None:
    adapter = await serve("fake:tokens_per_second=50", placement="inline", queue_length_max=1)
    calls = [
        asyncio.create_task(answer(adapter, order(words(20)))) for _ in range(SEQUENCES_MAX + 1)
    ]
    await asyncio.sleep(0.1)
    failed = await failure(adapter, order())
    assert failed.kind is FailureKind.OVERLOADED
    assert failed.retry_after_s is not None and failed.retry_after_s >= 1
    status = adapter.runtime.status()[0]
    assert (status.calls_running, status.calls_waiting) == (SEQUENCES_MAX, 1)
    assert [got.reason() for got in await asyncio.gather(*calls)] == ["stop"] * len(calls)
    assert (await answer(adapter, order("now"))).text() == "echo: now"


async def test_stop_ends_the_work_with_its_bill(serve: Serve, placement: str) -> None:
    adapter = await serve("fake:tokens_per_second=200", placement=placement)
    stop = asyncio.Event()
    seen = []
    async for event in adapter.infer(order(words(800), limits={"stop": stop})):
        seen.append(event)
        if len(seen) == 4:
            stop.set()
    assert isinstance(seen[-1], UsageReport)
    assert 2 <= seen[-1].usage.output_tokens < 100
    assert seen[-1].usage.compute_ns == adapter.runtime.status()[0].busy_ns


async def test_stop_before_the_model_is_loaded(serve: Serve) -> None:
    adapter = await serve("fake:load_seconds=5")
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    events = [event async for event in adapter.infer(order(limits={"stop": stop}))]
    assert [type(event) for event in events] == [UsageReport]


async def test_closing_the_generator_frees_its_place(serve: Serve, placement: str) -> None:
    adapter = await serve("fake:tokens_per_second=200", placement=placement, queue_length_max=0)
    for _ in range(20):
        async with aclosing(adapter.infer(order(words(800)))) as events:
            await first_chunk(events)
    assert adapter.runtime.status()[0].calls_running == 0
    assert (await answer(adapter, order("short"))).text() == "echo: short"


@pytest.mark.parametrize(
    ("limits", "source"),
    [
        ({"deadline_s": 0.3}, "fake:tokens_per_second=50"),
        ({"idle_s": 0.2}, "fake:tokens_per_second=1"),
        ({"first_event_s": 0.2}, "fake:tokens_per_second=1"),
    ],
)
async def test_time_limits(serve: Serve, limits: dict[str, Any], source: str) -> None:
    adapter = await serve(source, placement="inline")
    await adapter.runtime.load(MODEL)
    begun = time.monotonic()
    failed = await failure(adapter, order(words(500), limits=limits))
    assert failed.kind is FailureKind.TIMEOUT
    assert failed.usage is not None
    assert time.monotonic() - begun < 2


async def test_compute_ns_max(serve: Serve, placement: str) -> None:
    adapter = await serve("fake:compute_ns_per_token=1000", placement=placement)
    got = await answer(adapter, order("one two three", limits={"compute_ns_max": 5_999}))
    assert got.usage.compute_ns == 5_000
    assert got.reason() == "length"
    nothing = await answer(adapter, order("one two three", limits={"compute_ns_max": 0}))
    assert (nothing.usage.compute_ns, nothing.text()) == (0, "")


async def test_a_killed_child_is_replaced(serve: Serve) -> None:
    adapter = await serve("fake:tokens_per_second=100")
    events = adapter.infer(order(words(800)))
    await first_chunk(events)
    pid = adapter.runtime.status()[0].pid
    assert pid is not None
    with pytest.raises(AdapterError) as caught:
        os.kill(pid, signal.SIGKILL)
        async for event in events:
            assert isinstance(event, Chunk)
    failed = caught.value
    assert failed.kind is FailureKind.CRASHED
    assert failed.usage is not None
    usage = failed.usage
    assert (usage.input_tokens, usage.output_tokens >= 1) == (800, True)
    assert usage.compute_ns == 1_000_000 * (usage.input_tokens + usage.output_tokens)
    # The next call waits for the new child, which is started at once.
    begun = time.monotonic()
    assert (await answer(adapter, order("again"))).text() == "echo: again"
    assert time.monotonic() - begun < 5
    status = adapter.runtime.status()[0]
    assert status.crashes == 1
    assert status.pid not in {None, pid}
    # Clocks go on across lives.
    assert status.busy_ns > usage.compute_ns


async def test_three_crashes_quarantine_the_model(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "_FIRST_DELAY_S", 0.05)
    adapter = await serve("fake:crash_on=BOOM")
    for _ in range(3):
        assert (await failure(adapter, order("BOOM"))).kind is FailureKind.CRASHED
    status = adapter.runtime.status()[0]
    limit = time.monotonic() + 5
    while status.state is not ModelState.FAILED and time.monotonic() < limit:
        await asyncio.sleep(0.01)
        status = adapter.runtime.status()[0]
    assert status.state is ModelState.FAILED
    assert status.error is not None and "3 times within 5 minutes" in status.error
    failed = await failure(adapter, order("hello"))
    assert failed.kind is FailureKind.CRASHED
    assert "out of service" in failed.message
    # A person may ask for another try.
    await adapter.runtime.load(MODEL)
    assert (await answer(adapter, order("hello"))).text() == "echo: hello"


async def test_a_request_at_fault_names_its_parameter(serve: Serve, placement: str) -> None:
    adapter = await serve("fake:context_length=10", placement=placement)
    failed = await failure(adapter, order(words(50)))
    assert (failed.kind, failed.param) == (FailureKind.CONTEXT_LENGTH, "messages")
    assert "50" in failed.message and "10" in failed.message
    failed = await failure(adapter, order("hi", n=SEQUENCES_MAX + 1))
    assert (failed.kind, failed.param) == (FailureKind.BAD_REQUEST, "n")


async def test_closing_ends_running_calls(serve: Serve, placement: str) -> None:
    adapter = await serve("fake:tokens_per_second=100", placement=placement)
    events = adapter.infer(order(words(800)))
    await first_chunk(events)
    await adapter.close()
    with pytest.raises(AdapterError) as caught:
        async for _ in events:
            pass
    assert caught.value.kind is FailureKind.CRASHED


async def test_the_starter_model(serve: Serve, placement: str) -> None:
    """Real weights in both placements: the same seed says the same, streamed or not."""
    adapter = await serve(SMOLLM_SOURCE, placement=placement, context_length=1024, threads=1)
    params: dict[str, Any] = {"max_tokens": 20, "seed": 5, "temperature": 1.1}
    whole = await answer(adapter, order("Tell me about the sea.", **params))
    again = await answer(adapter, order("Tell me about the sea.", stream=True, **params))
    assert whole.text() == again.text() != ""
    assert len(again.deltas) > 5
    assert whole.usage.output_tokens == again.usage.output_tokens <= 20
    status = adapter.runtime.status()[0]
    assert whole.usage.compute_ns + again.usage.compute_ns == status.busy_ns
    assert status.unbilled_ns == 0
    stop = asyncio.Event()
    events = adapter.infer(order("Count.", ignore_eos=True, limits={"stop": stop}))
    await first_chunk(events)
    stop.set()
    rest = [event async for event in events]
    assert isinstance(rest[-1], UsageReport)
