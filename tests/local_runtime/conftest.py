"""Fixtures of the local runtime's tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from local_runtime.adapter import LocalAdapter
from local_runtime.runtime import LocalModelSpec, LocalRuntime
from tests.local_runtime.calls import MODEL

PRICE_NANO_USD_PER_SECOND = 10_000

Serve = Callable[..., Awaitable[LocalAdapter]]


@pytest.fixture(params=["inline", "child"])
def placement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start an adapter with one model; closed at the end of the test."""
    adapters: list[LocalAdapter] = []

    async def start(
        source: str,
        *,
        placement: str = "child",
        queue_length_max: int = 256,
        preload: bool = True,
        context_length: int | None = None,
        threads: int | None = None,
        **limits: Any,
    ) -> LocalAdapter:
        spec = LocalModelSpec(
            id=MODEL,
            source=source,
            preload=preload,
            context_length=context_length,
            threads=threads,
        )
        runtime = LocalRuntime(
            [spec], placement=placement, queue_length_max=queue_length_max, **limits
        )
        adapter = LocalAdapter(runtime, price_nano_usd_per_second=PRICE_NANO_USD_PER_SECOND)
        adapters.append(adapter)
        await adapter.start()
        return adapter

    yield start
    for adapter in adapters:
        await adapter.close()
