"""Promise: when the ledger's disk is nearly full no new call is taken in, when it is full those
that run are settled all the same, and when it fails nothing is dispatched any more. No call is
charged wrongly.
"""

import asyncio
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance, cli
from tests.small_disk import CAN_MOUNT, SmallDisk, small_disk
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

MIB = 1 << 20
PATIENCE_S = 40.0
needs_a_disk = pytest.mark.skipif(not CAN_MOUNT, reason="needs a mount namespace")


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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 64 * MIB) as found:
        yield found


async def get(running: RunningAppliance, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=running.base_url, trust_env=False) as client:
        return await client.get(path)


async def ready(running: RunningAppliance, status: int) -> httpx.Response:
    """Wait until the server is, or is not."""
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await get(running, "/readyz")).status_code != status:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return answer


async def metrics(running: RunningAppliance) -> dict[str, float]:
    lines = (await get(running, "/metrics")).text.splitlines()
    return {
        line.split()[0]: float(line.split()[1])
        for line in lines
        if line.startswith("turnpike_disk")
    }


def audited(disk: SmallDisk, tmp_path: Path) -> dict[str, object]:
    """What an audit says of the database as it lies there, looked at from outside."""
    copy = tmp_path / "copy"
    shutil.copytree(disk.path / "data", copy, ignore=shutil.ignore_patterns("ballast"))
    found: dict[str, object] = json.loads(cli(copy, "ledger", "audit", "--json"))
    return found


@needs_a_disk
async def test_with_little_room_new_calls_are_refused_and_running_ones_settle(
    disk: SmallDisk, tmp_path: Path
) -> None:
    limits = f"[disk]\nfree_bytes_min = {16 * MIB}\nballast_bytes = {4 * MIB}\n"
    async with PlayedProvider() as provider:
        config = limits + MOCK_PROVIDER.format(base_url=provider.base_url)
        data_dir = disk.path / "data"
        with appliance(data_dir, config, inside=disk.inside) as running:
            key = await asyncio.to_thread(running.key)
            found = await metrics(running)
            assert found["turnpike_disk_free_bytes"] > 16 * MIB
            assert found["turnpike_disk_low"] == 0
            assert (data_dir / "ballast").stat().st_size == 4 * MIB
            provider.script(Scene(name="slow", words=200, gap_s=0.1))
            slow = asyncio.create_task(asyncio.to_thread(running.chat, key, "acme/tiny"))
            await provider.wait_until(lambda: len(provider.books) == 1)
            disk.fill(leave=8 * MIB)
            problems = (await ready(running, 503)).json()["problems"]
            assert "nearly full" in problems["disk"]
            refused = await asyncio.to_thread(running.chat, key, "acme/tiny")
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "ledger_unavailable"
            assert refused.headers["retry-after"] == "30"
            assert (await get(running, "/livez")).status_code == 200
            assert (await metrics(running))["turnpike_disk_low"] == 1
            disk.fill(leave=0)
            assert (await slow).status_code == 200
            assert len(provider.books) == 1, "nothing that was refused had been sent"
            (row,) = await asyncio.to_thread(running.usage)
            cost = sum(200 * b.prompt_tokens + 600 * b.completion_tokens for b in provider.books)
            assert row["cost_nano_usd"] == cost
            disk.empty()
            await ready(running, 200)
            assert (await asyncio.to_thread(running.chat, key, "acme/tiny")).status_code == 200
            log = (data_dir / "serve.log").read_text()
            assert "no new calls are taken until there is room again" in log
            assert running.stop() == 0
        assert audited(disk, tmp_path)["problems"] == []


@needs_a_disk
async def test_the_ballast_is_given_up_to_go_on_and_made_again(
    disk: SmallDisk, tmp_path: Path
) -> None:
    """With ``free_bytes_min`` 0, so that calls go on until nothing can be written any more."""
    limits = f"[disk]\nfree_bytes_min = 0\nballast_bytes = {16 * MIB}\n"
    async with PlayedProvider() as provider:
        config = limits + MOCK_PROVIDER.format(base_url=provider.base_url)
        data_dir = disk.path / "data"
        with appliance(data_dir, config, inside=disk.inside) as running:
            key = await asyncio.to_thread(running.key)
            ballast = data_dir / "ballast"
            assert ballast.stat().st_size == 16 * MIB
            disk.fill(leave=0)
            calls = 0
            async with httpx.AsyncClient(
                base_url=running.base_url,
                headers={"Authorization": f"Bearer {key}"},
                trust_env=False,
                timeout=30,
            ) as client:
                body = {"model": "acme/tiny", "messages": [{"role": "user", "content": "hi"}]}
                while ballast.exists() and calls < 4000:
                    several = [client.post("/v1/chat/completions", json=body) for _ in range(40)]
                    for answer in await asyncio.gather(*several):
                        assert answer.status_code == 200, answer.text
                        calls += 1
            assert not ballast.exists(), f"{calls} calls needed no more room"
            assert "ballast of 16 MiB was given up" in (data_dir / "serve.log").read_text()
            (row,) = await asyncio.to_thread(running.usage)
            assert row["calls"] == calls == len(provider.books)
            disk.empty()
            async with asyncio.timeout(PATIENCE_S):
                while not ballast.exists():  # noqa: ASYNC110  (a file)
                    await asyncio.sleep(0.2)
            assert running.stop() == 0
        assert audited(disk, tmp_path)["problems"] == []


@needs_a_disk
def test_a_read_only_disk_is_refused_at_the_start(disk: SmallDisk) -> None:
    disk.read_only()
    for data_dir in (disk.place, disk.place / "data"):
        command = disk.inside(sys.executable, "-m", "app", "--data-dir", str(data_dir), "serve")
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        said = " ".join(refused.stderr.split())
        assert refused.returncode == 1
        assert "Read-only file system" in said
        assert "Mount it for writing" in said
        assert "Traceback" not in said


@needs_a_disk
def test_a_full_disk_is_refused_at_the_start(disk: SmallDisk) -> None:
    disk.fill(leave=0)
    command = disk.inside(sys.executable, "-m", "app", "--data-dir", str(disk.place), "serve")
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = " ".join(refused.stderr.split())
    assert refused.returncode == 1
    assert "Make room on its disk" in said
    assert "Traceback" not in said
