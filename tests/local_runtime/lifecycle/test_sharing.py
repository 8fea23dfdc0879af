"""Models that share too little memory, with the engine whose timing is scripted."""

import asyncio
import random
import time
from collections import Counter

import pytest

from local_runtime.adapter import LocalAdapter
from local_runtime.lifecycle.events import Happening, ModelEvent
from local_runtime.lifecycle.states import ModelState
from plugins.contract import AdapterError, Event, FailureKind, InferenceCall, UsageReport
from tests.local_runtime.calls import words
from tests.local_runtime.sharing import (
    Stream,
    ask,
    call_to,
    model,
    sharing,
    started,
    status,
    until,
)

SLOW = "fake:memory_bytes=60,tokens_per_second=100"


async def _events(local: LocalAdapter, call: InferenceCall) -> list[Event]:
    return [event async for event in local.infer(call)]


async def test_one_makes_room_for_the_other_and_comes_back() -> None:
    async with sharing(model("a"), model("b"), placement="inline", memory_bytes_max=100) as local:
        for name in ("a", "b", "a"):
            assert (await ask(local, name)).text() == "echo: hi"
            assert sum(each.memory_bytes for each in local.runtime.status()) == 60
        assert status(local, "b").state is ModelState.COLD
        assert (status(local, "a").evictions, status(local, "b").evictions) == (1, 1)
        assert (status(local, "a").loads, status(local, "b").loads) == (2, 1)


async def test_a_stream_is_never_broken_for_another_model() -> None:
    """lmstudio-bug-tracker 671: user B's load killed user A's stream."""
    async with sharing(
        model("a", SLOW), model("b"), placement="inline", memory_bytes_max=100
    ) as local:
        stream = await started(local, "a", words(250))
        other = asyncio.create_task(ask(local, "b"))
        await until(lambda: status(local, "a").state is ModelState.DRAINING)
        late = asyncio.create_task(ask(local, "a"))  # waits for its model to come back
        await asyncio.sleep(0.05)
        assert not other.done() and not late.done()
        seen = await stream.done
        assert isinstance(seen[-1], UsageReport)
        assert seen[-1].usage.output_tokens == 251
        assert (await other).text() == (await late).text() == "echo: hi"
        assert status(local, "a").evictions == 1


async def test_both_stay_where_they_fit() -> None:
    async with sharing(model("a"), model("b"), placement="inline", memory_bytes_max=120) as local:
        for name in "abababab":
            await ask(local, name)
        assert [each.loads for each in local.runtime.status()] == [1, 1]


async def test_what_never_fits_says_how_much_it_needs() -> None:
    big = model("big", "fake:memory_bytes=101")
    async with sharing(model("a"), big, placement="inline", memory_bytes_max=100) as local:
        await ask(local, "a")
        with pytest.raises(AdapterError, match=r"needs 101 bytes .* may have 100") as caught:
            await ask(local, "big")
        assert caught.value.kind is FailureKind.LOADING
        assert status(local, "big").state is ModelState.FAILED
        assert status(local, "a").state is ModelState.WARM  # nobody left in vain


async def test_kept_models_stay() -> None:
    kept = model("kept", keep=True)
    async with sharing(
        kept, model("b"), placement="inline", memory_bytes_max=100, keep_alive_s=0.05
    ) as local:
        await ask(local, "kept")
        with pytest.raises(AdapterError, match="taken by models that are kept"):
            await ask(local, "b")
        await asyncio.sleep(0.2)
        assert status(local, "kept").state is ModelState.WARM
        # A person may still unload it, and then ask for the other again.
        await local.runtime.unload("kept")
        await local.runtime.load("b")
        assert (await ask(local, "b")).text()


async def test_preloading_stops_where_the_memory_ends() -> None:
    specs = [model(name, preload=True) for name in "abc"]
    async with sharing(*specs, placement="inline", memory_bytes_max=130) as local:
        await until(lambda: status(local, "b").state is ModelState.WARM)
        await asyncio.sleep(0.05)
        assert [each.state for each in local.runtime.status()] == ["warm", "warm", "cold"]
        assert (await ask(local, "c")).text()  # a call may displace


async def test_a_call_is_not_forgotten_with_the_preload_that_did_not_fit() -> None:
    specs = [model(name, preload=True) for name in "ab"]
    async with sharing(*specs, placement="inline", memory_bytes_max=100) as local:
        async with asyncio.timeout(10):  # asked at once, before the preload was put off
            assert (await ask(local, "b")).text()


async def test_a_person_unloads_what_waits_for_room() -> None:
    """The call that it waits for is answered all the same, once there is room."""
    async with sharing(
        model("a", SLOW), model("b"), placement="inline", memory_bytes_max=100
    ) as local:
        stream = await started(local, "a", words(200))
        waiting = asyncio.create_task(ask(local, "b"))
        await until(lambda: status(local, "b").waits_for_room)
        await local.runtime.unload("b")
        assert isinstance((await stream.done)[-1], UsageReport)
        async with asyncio.timeout(10):
            assert (await waiting).text() == "echo: hi"


async def test_a_stopped_caller_of_a_waiting_model_leaves() -> None:
    async with sharing(
        model("a", SLOW), model("b"), placement="inline", memory_bytes_max=100
    ) as local:
        stream = await started(local, "a", words(150))
        stop = asyncio.Event()
        call = call_to("b", limits={"stop": stop})
        waiting = asyncio.create_task(_events(local, call))
        await until(lambda: status(local, "b").waits_for_room)
        stop.set()
        assert [type(event) for event in await waiting] == [UsageReport]
        assert not status(local, "b").waits_for_room
        assert isinstance((await stream.done)[-1], UsageReport)


async def test_unused_models_are_unloaded() -> None:
    specs = [model("short", keep_alive_s=0.1), model("long", keep_alive_s=0.0)]
    async with sharing(
        *specs, placement="inline", memory_bytes_max=200, keep_alive_s=60.0
    ) as local:
        await asyncio.gather(ask(local, "short"), ask(local, "long"))
        await until(lambda: status(local, "short").state is ModelState.COLD)
        assert status(local, "long").state is ModelState.WARM
        assert (await ask(local, "short")).text()


async def test_what_was_measured_counts_from_the_first_load_on() -> None:
    """Thought to fit together; they do not."""
    sources = "fake:footprint_bytes=40,memory_bytes=70"
    specs = [model("a", sources), model("b", sources)]
    async with sharing(*specs, placement="inline", memory_bytes_max=100) as local:
        await ask(local, "a")
        await ask(local, "b")
        await until(lambda: sum(each.memory_bytes for each in local.runtime.status()) == 70)
        await ask(local, "a")
        await ask(local, "b")
        assert sum(each.memory_bytes for each in local.runtime.status()) == 70


async def test_who_gives_up_waiting_displaces_nobody() -> None:
    async with sharing(
        model("a", SLOW), model("b"), placement="inline", memory_bytes_max=100, cold_wait_s_max=0.2
    ) as local:
        stream = await started(local, "a", words(150))
        with pytest.raises(AdapterError, match="waits for memory") as caught:
            await ask(local, "b")
        assert caught.value.kind is FailureKind.LOADING
        assert not status(local, "b").waits_for_room
        assert isinstance((await stream.done)[-1], UsageReport)
        await asyncio.sleep(0.2)
        assert status(local, "a").state is ModelState.WARM


async def test_served_alternately_under_load_without_a_broken_stream() -> None:
    """Two models, room for one, many impatient callers of both: nobody starves, nothing breaks,
    and most of the time goes into answers."""
    source = "fake:memory_bytes=60,tokens_per_second=200,load_seconds=0.2"
    chance = random.Random(7)
    served: Counter[str] = Counter()
    waits: list[float] = []
    async with sharing(
        model("a", source), model("b", source), placement="inline", memory_bytes_max=100
    ) as local:

        async def caller(name: str, until_s: float) -> None:
            while time.monotonic() < until_s:
                begun_s = time.monotonic()
                stream = Stream(local, name, words(chance.randint(2, 60)))
                async with asyncio.timeout(15):
                    await stream.begun.wait()
                waits.append(time.monotonic() - begun_s)
                assert isinstance((await stream.done)[-1], UsageReport)
                served[name] += 1
                await asyncio.sleep(chance.uniform(0, 0.05))

        end_s = time.monotonic() + 6
        await asyncio.gather(*(caller(name, end_s) for name in "ab" * 6))
        loads = sum(each.loads for each in local.runtime.status())
        crashes = sum(each.crashes for each in local.runtime.status())
    print(f"{dict(served)} answers, {loads} loads, longest wait {max(waits):.1f} s")
    assert crashes == 0
    assert min(served.values()) > 0.5 * max(served.values())
    assert 4 <= loads <= 12  # turns of about a second, and not a load per call
    assert sum(served.values()) > 10 * loads


async def test_events_tell_the_whole_story() -> None:
    async with sharing(model("a"), model("b"), placement="inline", memory_bytes_max=100) as local:
        seen: list[ModelEvent] = []

        async def watch() -> None:
            async for event in local.runtime.events(0):
                seen.append(event)

        watching = asyncio.create_task(watch())
        await ask(local, "a")
        await ask(local, "b")
        await asyncio.sleep(0.01)
        watching.cancel()
        states = [(e.model, str(e.state)) for e in seen if e.happening in {Happening.STATE}]
        assert states == [
            ("a", "loading"), ("a", "warm"), ("a", "draining"), ("a", "cold"),
            ("b", "loading"), ("b", "warm"),
        ]  # fmt: skip
        assert [e.model for e in seen if e.happening is Happening.EVICTED] == ["a"]
        assert [e.progress for e in seen if e.happening is Happening.PROGRESS][-1] == 1.0
        assert [e.number for e in seen] == list(range(1, len(seen) + 1))
        late: list[ModelEvent] = []
        async for event in local.runtime.events(seen[-3].number):
            late.append(event)
            if len(late) == 2:
                break
        assert late == seen[-2:]
