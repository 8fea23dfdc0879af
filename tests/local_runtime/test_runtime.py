"""The façade: what it refuses at start, and what it says about its models."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from local_runtime.lifecycle.states import ModelState
from local_runtime.runtime import LocalModelSpec, LocalRuntime, RuntimeConfigError
from plugins.contract import AdapterError, FailureKind, UsageReport
from tests.local_runtime.calls import (
    MODEL,
    SMOLLM_SOURCE,
    answer,
    first_chunk,
    order,
    smollm_path,
    words,
)
from tests.local_runtime.conftest import Serve


def runtime(source: str, placement: str = "inline", **fields: Any) -> LocalRuntime:
    return LocalRuntime([LocalModelSpec(id=MODEL, source=source, **fields)], placement=placement)


@pytest.mark.parametrize(
    ("source", "fields", "says"),
    [
        ("file:/nowhere/model.gguf", {}, "there is no file /nowhere/model.gguf"),
        ("package:no_such_package/m.gguf", {}, "make setup"),
        ("fake:speed=1", {}, "speed=1"),
        ("fake:tokens_per_second=0", {}, "more than 0"),
        ("fake:tokens_per_second=x", {}, "x"),
        (SMOLLM_SOURCE, {"context_length": 16384}, "trained for 8192"),
        (SMOLLM_SOURCE, {"engine": "fake"}, "fake"),
        (SMOLLM_SOURCE, {"engine": "torch"}, "torch"),
    ],
)
def test_what_cannot_be_served_is_refused_at_start(
    source: str, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(RuntimeConfigError, match=says) as caught:
        runtime(source, **fields)
    assert str(caught.value).startswith(MODEL)


def test_a_damaged_file_is_refused_at_start(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    with smollm_path().open("rb") as whole, path.open("wb") as cut:
        shutil.copyfileobj(whole, cut)
        cut.truncate(50_000_000)
    with pytest.raises(RuntimeConfigError, match="past the end of the file"):
        runtime(f"file:{path}")


def test_placements() -> None:
    with pytest.raises(RuntimeConfigError, match=r"extra `ray`"):
        runtime("fake:", placement="ray")
    with pytest.raises(RuntimeConfigError, match="'moon' is unknown"):
        runtime("fake:", placement="moon")


def test_making_one_loads_nothing() -> None:
    (status,) = runtime(SMOLLM_SOURCE).status()
    assert (status.state, status.progress, status.pid) == (ModelState.COLD, 0.0, None)


async def test_load_and_unload(placement: str) -> None:
    made = runtime("fake:load_seconds=0.05", placement)
    seen: list[float] = []
    await made.load(MODEL, seen.append)
    assert made.status()[0].state is ModelState.WARM
    assert seen[-1] == 1
    await made.unload(MODEL)
    assert made.status()[0].state is ModelState.COLD
    await made.load(MODEL)
    assert made.status()[0].state is ModelState.WARM
    await made.close()


async def test_unloading_waits_for_running_calls(serve: Serve) -> None:
    adapter = await serve("fake:tokens_per_second=100", placement="inline")
    events = adapter.infer(order(words(30)))
    await first_chunk(events)
    unloading = asyncio.create_task(adapter.runtime.unload(MODEL))
    await asyncio.sleep(0)
    assert adapter.runtime.status()[0].state is ModelState.DRAINING
    rest = [event async for event in events]
    assert isinstance(rest[-1], UsageReport)
    await unloading
    assert adapter.runtime.status()[0].state is ModelState.COLD
    # And it comes back when it is asked for.
    assert (await answer(adapter, order("again"))).text() == "echo: again"


async def test_a_load_that_fails(placement: str) -> None:
    made = runtime("fake:fail_on_load=broken weights", placement)
    with pytest.raises(AdapterError) as caught:
        await made.load(MODEL)
    assert caught.value.kind is FailureKind.CRASHED
    (status,) = made.status()
    assert (status.state, status.error) == (ModelState.FAILED, "broken weights")
    await made.close()
