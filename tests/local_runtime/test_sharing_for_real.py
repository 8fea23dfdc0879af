"""Promise: two real models that do not fit together are served alternately without breaking a
stream, in processes of their own, with real memory measured."""

import asyncio
import random
import time
from collections import Counter

import pytest

from local_runtime.lifecycle.events import Happening
from local_runtime.runtime import LocalModelSpec
from plugins.contract import UsageReport
from tests.local_runtime.calls import SMOLLM_SOURCE
from tests.local_runtime.sharing import Stream, ask, sharing, status

SECONDS_MAX = 180  # a few on a machine that has nothing else to do
EVICTIONS, ANSWERS = 3, 5
NAMES = ("first/model", "second/model")


def real(name: str) -> LocalModelSpec:
    return LocalModelSpec(
        id=name, source=SMOLLM_SOURCE, context_length=1024, preload=False, threads=1
    )


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_MAX + 100)
async def test_two_real_models_share_the_memory_of_one() -> None:
    chance = random.Random(11)
    served: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    waits: list[float] = []
    async with sharing(*map(real, NAMES)) as probe:  # what does one take?
        await ask(probe, NAMES[0], max_tokens=1)
        needs = status(probe, NAMES[0])
    assert needs.memory_bytes > 100_000_000
    limit = needs.memory_bytes * 3 // 2
    evicted = 0
    async with sharing(*map(real, NAMES), memory_bytes_max=limit) as local:

        async def watch() -> None:
            nonlocal evicted
            async for event in local.runtime.events(0):
                evicted += event.happening is Happening.EVICTED
                held = sum(each.memory_bytes for each in local.runtime.status())
                assert held <= limit

        def enough() -> bool:
            fewest = min(served[name] for name in NAMES)
            return (evicted >= EVICTIONS and fewest >= ANSWERS) or time.monotonic() > end_s

        async def caller(name: str) -> None:
            while not enough():
                begun_s = time.monotonic()
                length = chance.randint(5, 40)
                stream = Stream(local, name, "Tell me a tale.", ignore_eos=True, max_tokens=length)
                async with asyncio.timeout(120):
                    await stream.begun.wait()
                waits.append(time.monotonic() - begun_s)
                last = (await stream.done)[-1]
                assert isinstance(last, UsageReport)
                assert last.usage.output_tokens == length  # whole, not a token less
                served[name] += 1
                tokens[name] += length

        watching = asyncio.create_task(watch())
        begun_s = time.monotonic()
        end_s = begun_s + SECONDS_MAX
        await asyncio.gather(*(caller(name) for name in NAMES * 3))
        took_s = time.monotonic() - begun_s
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        found = local.runtime.status()
    loads = sum(each.loads for each in found)
    print(
        f"{dict(served)} answers, {dict(tokens)} tokens, {loads} loads, {max(waits):.1f} s waited"
    )
    assert sum(each.crashes for each in found) == 0
    assert evicted >= EVICTIONS  # it was alternately
    assert min(served.values()) >= ANSWERS
    assert loads < sum(served.values()) / 2  # and not a load for every call
    assert sum(each.load_ms for each in found) / 1000 < took_s / 2
