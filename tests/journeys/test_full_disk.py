"""Promise: when the ledger's disk fails, nothing is dispatched any more, and nothing is lost."""

import asyncio
import resource
import sys
from pathlib import Path

import httpx
import pytest

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider


def limit_file_size(running: RunningAppliance) -> None:
    """From now on every write of the server to a file fails, as on a full disk."""
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")
async def test_a_full_disk_stops_dispatching_and_a_restart_goes_on(tmp_path: Path) -> None:
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            good = await asyncio.to_thread(running.chat, key, "acme/tiny")
            assert good.status_code == 200
            limit_file_size(running)
            for _ in range(3):
                refused = await asyncio.to_thread(running.chat, key, "acme/tiny")
                assert refused.status_code == 503
                assert refused.json()["error"]["code"] == "ledger_unavailable"
            assert len(provider.books) == 1
            async with httpx.AsyncClient(base_url=running.base_url, trust_env=False) as client:
                ready = await client.get("/readyz")
                assert ready.status_code == 503
                assert "ledger" in ready.json()["problems"]
                assert (await client.get("/livez")).status_code == 200
            await asyncio.to_thread(running.stop)
        with appliance(tmp_path / "data", config) as running:
            again = await asyncio.to_thread(running.chat, key, "acme/tiny")
            assert again.status_code == 200
            (row,) = await asyncio.to_thread(running.usage)
            assert row["cost_nano_usd"] == sum(
                200 * b.prompt_tokens + 600 * b.completion_tokens for b in provider.books
            )
