"""Promises about costs that come later: a placeholder at once, then exactly the provider's figure;
and one appliance as another one's provider. The poll is every minute; here it is more often."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from app.boot import Appliance, open_appliance
from app.config import parse
from app.jobs import schedule
from app.ledger.entries import Balance
from app.storage.database import DATABASE_NAME
from tests.appliance import MOCK_PROVIDER, appliance
from tests.upstreams.billing import PlayedBilling
from tests.upstreams.provider import PlayedProvider

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@dataclass
class Front:
    """An appliance whose provider says costs later, its HTTP, and one user of it."""

    running: Appliance
    http: httpx.AsyncClient
    user_id: str

    async def chat(self, stream: bool, text: str = "one two three") -> str:
        """One whole call; its id."""
        body = {"model": "acme/tiny", "messages": [{"role": "user", "content": text}]}
        asked = {**body, "stream": stream, "max_tokens": 50}
        answer = await self.http.post("/v1/chat/completions", json=asked)
        assert answer.status_code == 200, answer.text
        assert "alpha" in answer.text
        return answer.headers["inference-id"]

    async def balance(self) -> Balance:
        return await self.running.services.ledger.balance(self.user_id)

    async def spent(self) -> int:
        balance = await self.balance()
        return sum(grant.spent_nano_usd for grant in balance.grants)

    async def all_released(self) -> None:
        """Wait until no call holds anything."""
        async with asyncio.timeout(20):
            while (await self.balance()).held_nano_usd:
                await self.running.services.ledger.wait_for_release(self.user_id, 1.0)

    async def costs(self, *call_ids: str) -> list[int]:
        """What the appliance itself says that these calls cost."""
        asked = {"requestIds": call_ids}
        answer = (await self.http.post("/api/billing/costs", json=asked)).json()["requests"]
        found = {cost["requestId"]: cost["costNanoUsd"] for cost in answer}
        return [found[call_id] for call_id in call_ids if call_id in found]


@asynccontextmanager
async def front(data_dir: Path, base_url: str, billing_url: str) -> AsyncIterator[Front]:
    """Its own price is a thousand times the provider's: it must not matter."""
    provider = {
        "id": "partner",
        "plugin": "openai_compatible",
        "base_url": base_url,
        "api_key": "env:PARTNER_KEY",
        "billing": {"url": billing_url, "api_key": "env:PARTNER_KEY"},
        "models": [
            {
                "id": "acme/tiny",
                "upstream_id": "acme/tiny",
                "price": {"input": "200", "output": "600"},
            }
        ],
    }
    quiet = {"routing": {"probes": False}, "disk": {"ballast_bytes": 0, "free_bytes_min": 0}}
    config = parse({**quiet, "providers": [provider]}, source="test", data_dir=str(data_dir))
    async with open_appliance(config, serving=True) as running:
        user = await running.services.users.add("ann", "pro", "member")
        _, key = await running.services.keys.create("ann", "laptop")
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(cast(Any, running.asgi)),
            base_url="http://127.0.0.1",
            headers={"authorization": f"Bearer {key}"},
            timeout=30,
        ) as http:
            yield Front(running, http, user.id)


def on_disk(data_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the database file of an appliance says."""
    with closing(sqlite3.connect(f"{(data_dir / DATABASE_NAME).as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(sql).fetchall()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "GIVE_UP_EVERY_S", 0.1)
    monkeypatch.setenv("PARTNER_KEY", "partner-key")


@both
async def test_a_placeholder_at_once_then_the_provider_s_figure(
    tmp_path: Path, stream: bool
) -> None:
    async with (
        PlayedProvider(request_id_header="Inference-Id") as provider,
        PlayedBilling() as billing,
        front(tmp_path, provider.base_url, billing.url) as ann,
    ):
        call_id = await ann.chat(stream)
        held = (await ann.balance()).held_nano_usd
        assert held > 8 * 600_000  # at the appliance's own price
        assert await ann.costs(call_id) == []
        while not billing.asked:  # noqa: ASYNC110  (the played API has no event)
            await asyncio.sleep(0.01)
        assert billing.asked[0] == [provider.books[0].id]
        assert billing.headers[0]["authorization"] == "Bearer partner-key"
        assert (await ann.balance()).held_nano_usd == held
        assert await ann.spent() == 0
        billing.costs[provider.books[0].id] = "1234.000000001"
        await ann.all_released()
        assert await ann.spent() == 1235
        assert await ann.costs(call_id) == [1235]
        usage = "SELECT call_id, cost_nano_usd, provider_cost_nano_usd, output_tokens FROM usage"
        assert on_disk(tmp_path, usage) == [(call_id, 1235, 1235, 8)]


async def test_one_appliance_is_another_one_s_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user of the first is charged exactly what the second charged the first's key."""
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        with appliance(tmp_path / "b", config) as back:
            monkeypatch.setenv("PARTNER_KEY", await asyncio.to_thread(back.user, "front", "pro"))
            costs_url = f"{back.base_url}/api/billing/costs"
            async with front(tmp_path / "a", f"{back.base_url}/v1", costs_url) as ann:
                prompts = ["one", "one two", "play:cached three", "play:long four five"]
                calls = [
                    await ann.chat(stream, text) for text in prompts for stream in (False, True)
                ]
                await ann.all_released()
                spent, costs = await ann.spent(), await ann.costs(*calls)
    charged = on_disk(tmp_path / "b", "SELECT count(*), sum(cost_nano_usd) FROM settlements")
    words = sum(booked.prompt_tokens * 200 for booked in provider.books)
    words += sum(booked.completion_tokens * 600 for booked in provider.books)
    assert charged == [(8, words)]
    assert spent == sum(costs) == words
    assert len(costs) == len(calls) == 8
    assert min(costs) > 0
