"""Promise: ``kill -9`` at any moment under load loses no acknowledged settlement and leaves no
hold without an owner, and the server is ready again in seconds.

``TURNPIKE_KILLS`` sets how many times the server is killed (50 for a release).
"""

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from pathlib import Path

import httpx

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance
from tests.upstream.provider import PlayedProvider

KILLS = int(os.environ.get("TURNPIKE_KILLS", "8"))
CLIENTS = 16
READY_SECONDS_MAX = 3.0


async def load(client: httpx.AsyncClient, url: str, key: str, acknowledged: set[str]) -> None:
    """Call until the server is gone; note every call whose whole answer arrived."""
    while True:
        stream = random.random() < 0.5
        body = {
            "model": "acme/tiny",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": stream,
        }
        response = await client.post(url, json=body, headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 200, response.text
        if not stream or response.text.endswith("data: [DONE]\n\n"):
            acknowledged.add(response.headers["inference-id"])


async def one_life(running: RunningAppliance, key: str, acknowledged: set[str]) -> None:
    """Load the server, kill it at a random moment."""
    url = f"{running.base_url}/v1/chat/completions"
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        loads = [asyncio.create_task(load(client, url, key, acknowledged)) for _ in range(CLIENTS)]
        await asyncio.sleep(random.uniform(0.05, 0.8))
        running.kill()
        for each in loads:
            with contextlib.suppress(httpx.HTTPError):
                await each


def check_books(path: Path, acknowledged: set[str]) -> None:
    """What the file says, once nobody has it open."""
    database = sqlite3.connect(path)
    ask = database.execute
    assert ask("PRAGMA integrity_check").fetchone() == ("ok",)
    completed = {row[0] for row in ask("SELECT call_id FROM usage WHERE outcome='completed'")}
    assert acknowledged <= completed
    settled = {row[0] for row in ask("SELECT call_id FROM settlements WHERE state='settled'")}
    assert completed == settled
    (charged,) = ask("SELECT coalesce(sum(cost_nano_usd), 0) FROM usage").fetchone()
    (posted, held) = ask(
        "SELECT coalesce(sum(posted_nano_usd), 0), coalesce(sum(held_nano_usd), 0) FROM balances"
    ).fetchone()
    assert (posted, held) == (charged, 0)
    assert ask("SELECT count(*) FROM holds").fetchone() == (0,)
    database.close()


async def test_kill_nine_at_random_moments(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random.seed(seed)
    data_dir = tmp_path / "data"
    acknowledged: set[str] = set()
    key = ""
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        for _ in range(KILLS):
            started = time.monotonic()
            with await asyncio.to_thread(lambda: appliance(data_dir, config)) as running:
                ready_s = time.monotonic() - started
                key = key or await asyncio.to_thread(running.key)
                await one_life(running, key, acknowledged)
            assert ready_s < READY_SECONDS_MAX * 5, f"ready after {ready_s:.1f} s"
        with appliance(data_dir, config) as running:
            assert running.stop() == 0
    assert acknowledged
    check_books(data_dir / "turnpike.db", acknowledged)
