"""A provider whose offers are priced by compute: what is reported, and where an answer ends."""

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace

from plugins.conformance import run
from plugins.contract import Adapter, AdapterError, FailureKind, InferenceCall
from tests.plugins.conftest import make_call
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
SECOND = 10**9


def priced_by_compute(stream: bool, seconds: float = 20.0, **more: Any) -> InferenceCall:
    return replace(make_call(stream, **more), compute_ns_max=int(seconds * SECOND))


@both
async def test_the_provider_s_own_figure_is_reported(
    adapter: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    provider.always = Scene(headers=(("X-Compute-Time", "0.000000123"),))
    usage = (await run(adapter, priced_by_compute(stream))).usage
    assert (usage.compute_ns, usage.estimated) == (123, False)
    assert usage.output_tokens == 8


@both
async def test_without_a_figure_it_is_the_time_that_passed(
    adapter: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    provider.always = Scene(wait_s=0.05)
    began_ns = time.monotonic_ns()
    usage = (await run(adapter, priced_by_compute(stream))).usage
    assert usage.estimated
    assert 0.04 * SECOND < usage.compute_ns <= time.monotonic_ns() - began_ns


@both
async def test_priced_by_tokens_nothing_is_measured(
    adapter: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    provider.always = Scene(headers=(("X-Compute-Time", "1"),))
    usage = (await run(adapter, make_call(stream))).usage
    assert (usage.compute_ns, usage.estimated) == (0, False)


@both
async def test_no_attempt_goes_on_past_the_compute_that_is_paid_for(
    adapter: Adapter, provider: PlayedProvider, stream: bool
) -> None:
    provider.always = Scene(hang_after=3, words=10)
    call = priced_by_compute(stream, seconds=0.2)
    with pytest.raises(AdapterError) as caught:
        async with asyncio.timeout(10):
            await run(adapter, call)
    assert caught.value.kind is FailureKind.TIMEOUT
    if stream:  # what was delivered is paid for, with the time that it took
        assert caught.value.usage is not None
        assert caught.value.usage.compute_ns >= 0.2 * SECOND
        assert caught.value.usage.output_tokens > 0
