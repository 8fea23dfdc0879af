"""An appliance that traces, calls of it, and what every tree of spans must be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.tracing.attributes import ATTRIBUTES
from tests.appliance import RunningAppliance, appliance
from tests.upstreams.collector import PlayedCollector, Seen


@asynccontextmanager
async def started(
    folder: Path, collector: PlayedCollector, config: str, tracing: str = ""
) -> AsyncIterator[tuple[RunningAppliance, str]]:
    """An appliance that traces, and a key for it."""
    toml = f'[tracing]\nendpoint = "{collector.endpoint}"\n{tracing}\n{config}'
    context = appliance(folder / "data", toml)
    running = await asyncio.to_thread(context.__enter__)
    try:
        yield running, await asyncio.to_thread(running.user, "ann", "pro")
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def ask(
    running: RunningAppliance,
    key: str,
    model: str = "acme/tiny",
    headers: dict[str, str] | None = None,
    **params: Any,
) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello there"}], **params}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        return await http.post(
            f"{running.base_url}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {key}", **(headers or {})},
        )


def log_of(folder: Path) -> str:
    return (folder / "data" / "serve.log").read_text()


def mapped(running: RunningAppliance) -> str:
    """The files that the server has in its memory, where the system tells."""
    try:
        return Path(f"/proc/{running.process.pid}/maps").read_text()
    except OSError:
        return ""


def is_well_formed(call: Seen) -> None:
    """Every span of the tree lies in the one above it and has only what it may have."""
    assert set(call.attributes) <= ATTRIBUTES
    assert call.start_ns <= call.end_ns
    for child in call.children:
        assert child.trace_id == call.trace_id
        assert call.start_ns <= child.start_ns
        assert child.end_ns <= call.end_ns
        assert all(child.start_ns <= at <= child.end_ns for at in child.events.values())
        is_well_formed(child)
