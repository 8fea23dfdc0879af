"""Rows of the fault matrix, at the binary: a disk that is full, read-only, or fails its writes."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.appliance import RunningAppliance, appliance, cli
from tests.frozen.faulty import (
    ask,
    books_agree,
    charged,
    config_for,
    injected,
    readiness,
    run,
    spent,
)
from tests.journeys.ledger_file import LedgerFile
from tests.journeys.test_kill import can_trace
from tests.small_disk import CAN_MOUNT, SmallDisk, small_disk
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

MIB = 1 << 20
LIMITS = f"[disk]\nfree_bytes_min = {16 * MIB}\nballast_bytes = {4 * MIB}\n"
pytestmark = pytest.mark.slow
needs_a_disk = pytest.mark.skipif(not CAN_MOUNT, reason="needs a mount namespace")
needs_strace = pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to use it")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 64 * MIB) as found:
        yield found


async def chat(running: RunningAppliance, key: str) -> int:
    """One call; its status. What is no answer is the ledger's refusal, with the call's id."""
    answer = await asyncio.to_thread(running.chat, key, "acme/tiny")
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["code"] == "ledger_unavailable"
        assert error["request_id"] == answer.headers["inference-id"]
    return answer.status_code


@needs_a_disk
async def test_full_no_call_is_sent_running_ones_settle_and_room_heals(
    disk: SmallDisk, folder: Path, tmp_path: Path
) -> None:
    async with PlayedProvider() as provider:
        data_dir = disk.path / "data"
        config = config_for(provider, LIMITS)
        with appliance(
            data_dir, config, program=folder / "turnpike", inside=disk.inside
        ) as running:
            key = await asyncio.to_thread(running.key)
            provider.script(Scene(words=200, gap_s=0.1))
            slow = asyncio.create_task(chat(running, key))
            await provider.wait_until(lambda: len(provider.books) == 1)
            disk.fill(leave=8 * MIB)
            problems = (await readiness(running, 503))["problems"]
            assert "nearly full" in problems["disk"]
            for _ in range(3):
                assert await chat(running, key) == 503
            disk.fill(leave=0)
            assert await slow == 200
            assert len(provider.books) == 1, "nothing that was refused had been sent"
            disk.empty()
            await readiness(running, 200)
            assert await chat(running, key) == 200
            (row,) = await asyncio.to_thread(running.usage)
            assert row["cost_nano_usd"] == charged(provider)
            assert running.stop() == 0
        copy = tmp_path / "copy"
        shutil.copytree(disk.path / "data", copy, ignore=shutil.ignore_patterns("ballast"))
        assert json.loads(cli(copy, "ledger", "audit", "--json"))["problems"] == []


@needs_a_disk
@pytest.mark.parametrize("state", ["read-only", "full"])
def test_at_the_start_it_is_refused_with_what_to_do(
    disk: SmallDisk, folder: Path, tmp_path: Path, state: str
) -> None:
    if state == "full":
        disk.fill(leave=0)
    else:
        disk.read_only()
    command = disk.inside(str(folder / "turnpike"), "--data-dir", str(disk.place), "serve")
    refused = run(Path(command[0]), *command[1:])
    assert refused.returncode == 1
    said = {"full": "Make room on its disk", "read-only": "Mount it for writing"}[state]
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


FAILURES = {
    "a failed sync": ("fdatasync,fsync", "EIO", "1"),
    "syncs that fail from the second on": ("fdatasync,fsync", "EIO", "2+"),
    "a write that fails midway": ("pwrite64", "EIO", "7"),
    "a read-only disk": ("pwrite64", "EROFS", "1+"),
}


@needs_strace
@pytest.mark.parametrize("failure", FAILURES)
async def test_after_a_failed_write_nothing_is_dispatched_and_a_restart_knows_all(
    folder: Path, tmp_path: Path, failure: str
) -> None:
    """A failed commit means that nobody knows: so the ledger stops until it was read anew."""
    syscalls, error, when = FAILURES[failure]
    async with PlayedProvider() as provider:
        config = config_for(provider)
        program = folder / "turnpike"
        with appliance(tmp_path / "data", config, program=program) as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            assert await chat(running, key) == 200
            wal = running.data_dir / "turnpike.db-wal"
            answered = 1
            async with injected(running.process.pid, syscalls, error, when=when, path=wal):
                while (status := await chat(running, key)) == 200:
                    answered += 1
                    assert answered < 10, "the write never failed"
                assert status == 503
            sent = len(provider.books)
            # The disk is well again, and still: what it says is not known to be what was written.
            for _ in range(3):
                assert await chat(running, key) == 503
            assert len(provider.books) == sent, "sent without a hold"
            problems = (await readiness(running, 503))["problems"]
            assert "ledger" in problems
            assert (await asyncio.to_thread(ask, running, "/livez")).status_code == 200
            log = (running.data_dir / "serve.log").read_text()
            assert "the ledger stopped: a write failed; restart to go on" in log
            await asyncio.to_thread(running.stop)
        with appliance(tmp_path / "data", config, program=program) as running:
            ledger = LedgerFile(running.data_dir)
            assert ledger.open_holds() == 0
            completed = [r for r in ledger.calls().values() if r.outcome == "completed"]
            # What was answered is there; of what was not, all or nothing.
            assert answered <= len(completed) <= sent
            assert await chat(running, key) == 200
            cost = spent(running)
            assert cost % (charged(provider) // len(provider.books)) == 0
            assert (answered + 1) * (cost // (len(completed) + 1)) <= charged(provider)
            ledger.check()
            assert json.loads(running.cli("ledger", "audit", "--json"))["problems"] == []
            assert running.stop() == 0


@needs_strace
async def test_no_room_for_a_moment_is_got_over_with_the_ballast(
    folder: Path, tmp_path: Path
) -> None:
    async with PlayedProvider() as provider:
        config = config_for(provider, f"[disk]\nfree_bytes_min = 0\nballast_bytes = {MIB}\n")
        with appliance(tmp_path / "data", config, program=folder / "turnpike") as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            ballast = running.data_dir / "ballast"
            assert ballast.exists()
            wal = running.data_dir / "turnpike.db-wal"
            async with injected(running.process.pid, "pwrite64", "ENOSPC", when="1", path=wal):
                assert await chat(running, key) == 200
            assert "ballast of 1 MiB was given up" in (running.data_dir / "serve.log").read_text()
            async with asyncio.timeout(30):
                while not ballast.exists():  # noqa: ASYNC110  (a file)
                    await asyncio.sleep(0.1)
            books_agree(running, provider)
            assert running.stop() == 0
