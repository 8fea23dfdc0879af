"""Promise: a backup taken while calls run restores to books that add up, and a damaged database is
refused with the command that brings it back.
"""

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance, cli
from tests.upstreams.provider import PlayedProvider

CLIENTS = 8


async def call_on(running: RunningAppliance, key: str, acknowledged: set[str]) -> None:
    """Call until cancelled; note every call whose answer arrived."""
    body = {"model": "acme/tiny", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        while True:
            response = await client.post(
                f"{running.base_url}/v1/chat/completions", json=body, headers=headers
            )
            assert response.status_code == 200, response.text
            acknowledged.add(response.headers["inference-id"])


async def test_a_backup_under_load_restores_to_the_same_books(tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        target = tmp_path / "b.tar"
        with await asyncio.to_thread(lambda: appliance(tmp_path / "data", config)) as running:
            key = await asyncio.to_thread(running.key)
            calls = [
                asyncio.create_task(call_on(running, key, acknowledged)) for _ in range(CLIENTS)
            ]
            for _ in range(20):
                assert (await asyncio.to_thread(running.chat, key, "acme/tiny")).status_code == 200
            for _ in range(3):
                before = set(acknowledged)
                done = await asyncio.to_thread(running.cli, "backup", str(target), "--force")
                assert "verified" in done
            found = json.loads(await asyncio.to_thread(running.cli, "ledger", "audit", "--json"))
            assert found["problems"] == []
            for each in calls:
                each.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await each
            refused = await asyncio.to_thread(_run, running.data_dir, "restore", str(target))
            assert refused.returncode == 1
            assert "already running" in refused.stderr

        restored = tmp_path / "restored"
        assert "Restored" in cli(restored, "restore", str(target))
        with await asyncio.to_thread(lambda: appliance(restored, config)) as running:
            again = await asyncio.to_thread(running.chat, key, "acme/tiny")
            assert again.status_code == 200
            assert running.stop() == 0
    assert before <= settled(restored)
    assert json.loads(cli(restored, "ledger", "audit", "--json"))["problems"] == []
    lines = json.loads(cli(restored, "ledger", "statement", "owner", "--json"))
    assert [line["kind"] for line in lines["lines"]].count("grant") == 1


async def test_a_damaged_journal_stops_the_start_and_a_restore_brings_it_back(
    tmp_path: Path,
) -> None:
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        data_dir, target = tmp_path / "data", tmp_path / "b.tar"
        with await asyncio.to_thread(lambda: appliance(data_dir, config)) as running:
            key = await asyncio.to_thread(running.key)
            assert (await asyncio.to_thread(running.chat, key, "acme/tiny")).status_code == 200
            await asyncio.to_thread(running.cli, "backup", str(target))
            assert running.stop() == 0
        spoil(data_dir)
        refused = _run(data_dir, "serve")
        assert refused.returncode == 1
        assert "does not match its hash" in refused.stderr
        assert f"restore {target}" in refused.stderr
        assert _run(data_dir, "ledger", "audit").returncode == 1
        assert "before-restore-" in cli(data_dir, "restore", str(target))
        with await asyncio.to_thread(lambda: appliance(data_dir, config)) as running:
            assert (await asyncio.to_thread(running.chat, key, "acme/tiny")).status_code == 200
            (row,) = await asyncio.to_thread(running.usage)
            assert row["calls"] == 2


def settled(data_dir: Path) -> set[str]:
    database = sqlite3.connect(data_dir / "turnpike.db")
    found = {row[0] for row in database.execute("SELECT call_id FROM settlements")}
    database.close()
    return found


def spoil(data_dir: Path) -> None:
    """A bit that flipped in an amount."""
    database = sqlite3.connect(data_dir / "turnpike.db")
    database.execute("DROP TRIGGER entries_no_update")
    database.execute("UPDATE entries SET amount_nano_usd = amount_nano_usd + 4 WHERE seq = 1")
    database.commit()
    database.close()


def _run(data_dir: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "--data-dir", str(data_dir), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
