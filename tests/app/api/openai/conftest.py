"""A shop, and its customer's client."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from plugins.openai_compatible.tasks import videos
from tests.app.api.openai.shop import Shop, open_shop
from tests.upstreams.tasks import PlayedTasks


@pytest.fixture
async def played() -> AsyncIterator[PlayedTasks]:
    async with PlayedTasks() as provider:
        yield provider


@pytest.fixture
async def shop(
    tmp_path: Path, played: PlayedTasks, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shop]:
    monkeypatch.setattr(videos, "POLL_S", (0.01,))
    async with open_shop(tmp_path, played) as opened:
        yield opened


@pytest.fixture
async def ann(shop: Shop) -> openai.AsyncOpenAI:
    return await shop.client("ann")
