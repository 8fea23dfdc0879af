"""Promise: with a folder configured, backups are made without being asked for, beside running
calls; a restart makes no second one, and one that cannot be made is told and changes nothing.
"""

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any

import httpx

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance, cli
from tests.upstreams.provider import PlayedProvider

PATIENCE_S = 60.0


def listed(running: RunningAppliance) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(running.cli("backup", "--list", "--json"))
    return found


def metric(running: RunningAppliance, name: str) -> float | None:
    text = httpx.get(f"{running.base_url}/metrics", trust_env=False).text
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return None


async def until(running: RunningAppliance, name: str) -> float:
    """Wait until a metric is more than nothing."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            value = await asyncio.to_thread(metric, running, name)
            if value:
                return value
            await asyncio.sleep(0.1)


async def test_a_backup_is_made_beside_calls_and_restores(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        scheduled = f'[backups]\nfolder = "{folder}"\nkeep = 1\n{config}'
        with await asyncio.to_thread(lambda: appliance(tmp_path / "data", scheduled)) as running:
            key = await asyncio.to_thread(running.key)
            assert (await asyncio.to_thread(running.chat, key, "acme/tiny")).status_code == 200
            at_s = await until(running, "turnpike_backup_last_success_timestamp_seconds")
            assert abs(at_s - time.time()) < PATIENCE_S
            assert metric(running, "turnpike_backup_failures_total") == 0
            (made,) = await asyncio.to_thread(listed, running)
            assert (made["kind"], made["own"]) == ("scheduled", True)
            by_hand = await asyncio.to_thread(running.cli, "backup", str(folder / "mine.tar"))
            assert "verified" in by_hand
            assert (await asyncio.to_thread(running.chat, key, "acme/tiny")).status_code == 200
            assert running.stop() == 0
        with await asyncio.to_thread(lambda: appliance(tmp_path / "data", scheduled)) as running:
            await until(running, "turnpike_backup_last_success_timestamp_seconds")
            kinds = [each["kind"] for each in await asyncio.to_thread(listed, running)]
            assert sorted(kinds) == ["by hand", "scheduled"], "a restart is no reason for another"
            table = await asyncio.to_thread(running.cli, "backup", "--list")
            assert made["path"] in table
            assert running.stop() == 0
        assert "Restored" in cli(tmp_path / "fresh", "restore", str(folder / "mine.tar"))
        with await asyncio.to_thread(lambda: appliance(tmp_path / "fresh", config)) as running:
            assert metric(running, "turnpike_backup_failures_total") is None, "none are configured"
            assert (await asyncio.to_thread(running.chat, key, "acme/tiny")).status_code == 200


async def test_a_backup_that_fails_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "disk" / "backups"
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        scheduled = f'[backups]\nfolder = "{folder}"\n{config}'
        with await asyncio.to_thread(lambda: appliance(tmp_path / "data", scheduled)) as running:
            assert await until(running, "turnpike_backup_failures_total") == 1
            assert metric(running, "turnpike_backup_last_success_timestamp_seconds") == 0
            key = await asyncio.to_thread(running.key)
            assert (await asyncio.to_thread(running.chat, key, "acme/tiny")).status_code == 200
        assert "no backup was made" in (tmp_path / "data" / "serve.log").read_text()
        assert not (tmp_path / "disk").exists()


def test_without_a_path_it_goes_into_the_folder(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    cli(data_dir, "users", "list")
    said = cli(data_dir, "backup")
    (made,) = (data_dir / "backups").iterdir()
    assert str(made) in said
    shutil.move(made, tmp_path / "elsewhere.tar")
    assert json.loads(cli(data_dir, "backup", "--list", "--json")) == []
    assert "Restored" in cli(tmp_path / "fresh", "restore", str(tmp_path / "elsewhere.tar"))
