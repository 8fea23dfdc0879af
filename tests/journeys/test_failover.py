"""Promises of the router over real HTTP: failover before the first byte, honesty after it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIError, APIStatusError, AsyncOpenAI

from tests.appliance import RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider

PROVIDER = """
[[providers]]
id = "{id}"
plugin = "openai_compatible"
base_url = "{base_url}"
first_event_seconds_max = 2.0
idle_seconds_max = 1.0
seconds_max = 5.0
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
"""
# Tried in the order of the file, whatever was measured; nobody else's calls in the books.
IN_ORDER = '[routing]\ndefault_policy = "preferred"\nprobes = false\n'
ASKED: Any = {"model": "acme/tiny", "messages": [{"role": "user", "content": "hi"}]}
BEFORE_THE_FIRST_BYTE = [
    *("server_error", "unavailable", "overloaded", "rate_limited", "unauthorised", "not_found"),
    *("html", "garbage", "redirect", "gzip", "error_in_200", "reset_at_once", "error_first"),
]


class Stage:
    """Two providers and the appliance in front of them."""

    def __init__(
        self, first: PlayedProvider, second: PlayedProvider, running: RunningAppliance, key: str
    ) -> None:
        self.first = first
        self.second = second
        self.running = running
        url = f"{running.base_url}/v1"
        self.client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0)

    def billed(self) -> int:
        """Nano-USD that the ledger charged."""
        return sum(row["cost_nano_usd"] for row in self.running.usage())


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with PlayedProvider() as first, PlayedProvider() as second:
        config = IN_ORDER + "".join(
            PROVIDER.format(id=name, base_url=provider.base_url)
            for name, provider in (("first", first), ("second", second))
        )
        with appliance(tmp_path / "data", config) as running:
            made = Stage(first, second, running, await asyncio.to_thread(running.key))
            yield made
            await made.client.close()


async def test_every_early_fault_fails_over(stage: Stage) -> None:
    for at, scene in enumerate(BEFORE_THE_FIRST_BYTE):
        stage.first.script(scene)
        answer = await stage.client.chat.completions.create(**ASKED)
        assert answer.choices[0].message.content, scene
        stage.first.script("normal")  # closes the circuit again
        await stage.client.chat.completions.create(**ASKED, extra_body={"seed": at})
    books = [b for b in (*stage.first.books, *stage.second.books) if b.status == 200 and b.finished]
    good = [b for b in books if b.scene == "normal"]
    cost = sum(200 * b.prompt_tokens + 600 * b.completion_tokens for b in good)
    assert await asyncio.to_thread(stage.billed) == cost


async def test_a_stream_fails_over_before_its_first_byte_only(stage: Stage) -> None:
    stage.first.script("server_error")
    stream = await stage.client.chat.completions.create(**ASKED, stream=True)
    assert [chunk async for chunk in stream][-1].choices[0].finish_reason == "stop"
    assert len(stage.second.books) == 1
    stage.first.script("error_later")
    stream = await stage.client.chat.completions.create(**ASKED, stream=True)
    with pytest.raises(APIError, match="No provider"):
        async for _ in stream:
            pass
    assert len(stage.second.books) == 1


async def test_a_pinned_provider_has_no_stand_in(stage: Stage) -> None:
    stage.first.script("server_error")
    with pytest.raises(APIStatusError) as caught:
        await stage.client.chat.completions.create(**{**ASKED, "model": "acme/tiny:first"})
    assert caught.value.status_code == 502
    assert "sk-" not in caught.value.message
    assert stage.second.books == []


async def test_the_callers_mistake_is_told_and_costs_nothing(stage: Stage) -> None:
    stage.first.script("bad_request")
    with pytest.raises(APIStatusError, match="temperature is too hot") as caught:
        await stage.client.chat.completions.create(**ASKED)
    assert caught.value.status_code == 400
    assert stage.second.books == []
    assert await asyncio.to_thread(stage.billed) == 0


async def test_a_silent_provider_is_left_in_time(stage: Stage) -> None:
    stage.first.script("slow_headers")
    stream = await stage.client.chat.completions.create(**ASKED, stream=True)
    assert [chunk async for chunk in stream]
    assert len(stage.second.books) == 1
