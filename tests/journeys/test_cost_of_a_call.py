"""What a call costs, over real HTTP, to the nano: by token, by second, as billed, by date."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.appliance import RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

CONFIG = """
[[providers]]
id = "{id}"
plugin = "openai_compatible"
base_url = "{base_url}"
trust_cost = {trusted}

[[providers.models]]
id = "acme/tokens"
price = {{ input = "0.20", output = "0.60", cache_read = "0.02", cache_write = "0.25", \
reasoning = "1.20", audio_input = "3", audio_output = "6", per_request = "0.001" }}

[[providers.models]]
id = "acme/seconds"
price_per_second = "0.00012"

[[providers.models]]
id = "acme/dated"
price = {{ input = "100", output = "100" }}
[[providers.models.prices]]
from = "2020-01-01"
input = "1"
output = "2"
[[providers.models.prices]]
from = {tomorrow}
input = "100"
output = "100"

[[providers.models]]
id = "acme/later"
[[providers.models.prices]]
from = {tomorrow}
input = "1"
output = "2"
""".replace("\\\n", "")

USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20, "audio_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 15, "audio_tokens": 5},
    "cost": 0.0123456789,
}
BY_TOKENS = (
    (40 * 200 + 30 * 20 + 20 * 250 + 10 * 3000) + (30 * 600 + 15 * 1200 + 5 * 6000) + 1_000_000
)


def answer(**more: Any) -> Scene:
    """A whole answer with these headers, and with usage as OpenRouter reports it."""
    message = {"role": "assistant", "content": "Hello"}
    body = {
        "id": "x",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    return Scene(body=json.dumps(body).encode(), **more)


@dataclass
class Stage:
    """A provider, the appliance that knows it twice over (trusted and not), and a key."""

    provider: PlayedProvider
    running: RunningAppliance
    key: str

    async def cost(self, model: str) -> tuple[int, int | None]:
        """One call: what was charged, and the provider's own figure, both as recorded."""
        reply = await asyncio.to_thread(self.running.chat, self.key, model)
        assert reply.status_code == 200, reply.text
        database = sqlite3.connect(self.running.data_dir / "turnpike.db")
        try:
            return database.execute(  # type: ignore[no-any-return]
                "SELECT cost_nano_usd, provider_cost_nano_usd FROM usage"
                " ORDER BY at_ms DESC, call_id DESC LIMIT 1"
            ).fetchone()
        finally:
            database.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    async with PlayedProvider() as provider:
        config = "".join(
            CONFIG.format(id=name, base_url=provider.base_url, trusted=trusted, tomorrow=tomorrow)
            for name, trusted in (("plain", "false"), ("trusted", "true"))
        )
        data_dir: Path = tmp_path_factory.mktemp("cost") / "data"
        with appliance(data_dir, config) as running:
            yield Stage(provider, running, await asyncio.to_thread(running.key))


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_bucket_at_its_price(stage: Stage) -> None:
    stage.provider.script(answer())
    assert await stage.cost("acme/tokens:plain") == (BY_TOKENS, 12_345_679)


async def test_a_trusted_provider_is_paid_as_its_answer_says(stage: Stage) -> None:
    stage.provider.script(answer())
    assert await stage.cost("acme/tokens:trusted") == (12_345_679, 12_345_679)


async def test_ten_seconds_at_twelve_hundred_thousandths_of_a_dollar(stage: Stage) -> None:
    stage.provider.script(answer(headers=(("X-Compute-Time", "10"),)))
    assert await stage.cost("acme/seconds:plain") == (1_200_000, 12_345_679)


async def test_the_price_in_force_counts(stage: Stage) -> None:
    stage.provider.script(answer())
    assert (await stage.cost("acme/dated:plain"))[0] == 100 * 1000 + 50 * 2000


async def test_a_model_whose_price_is_still_to_come_is_not_offered(stage: Stage) -> None:
    reply = await asyncio.to_thread(stage.running.chat, stage.key, "acme/later")
    assert reply.status_code == 404
    words = ("models", "list", "--json")
    lines = json.loads(await asyncio.to_thread(stage.running.cli, *words))
    later = [line for line in lines if line["model"] == "acme/later"]
    assert [line["status"] for line in later] == ["unpriced", "unpriced"]
    assert [len(line["upcoming"]) for line in later] == [1, 1]
