"""The backup job: due by what lies in the folder, made by a real process, and never held up."""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.jobs import back_up
from app.jobs.back_up import BackingUp
from app.storage.archive import read_manifest
from app.storage.backup_folder import (
    LEFTOVER_AGE_S,
    BackupFolder,
    BackupPlan,
    BackupRecord,
    identity_of,
)
from tests.app.jobs.test_schedule import crew_of
from tests.app.ledger.books import START_MS, HandClock, hold, opened
from tests.app.ledger.two_clocks import TwoClocks

HOUR_MS = 3_600_000
PROGRAM = (sys.executable, "-m", "app")


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """A data directory with a call in its books."""
    async with opened(tmp_path / "data" / "turnpike.db") as books:
        await books.ledger.place_hold(hold(10, call_id="a"))
    return tmp_path / "data"


def job_of(
    data_dir: Path,
    clock: HandClock,
    *,
    command: Sequence[str] = (),
    keep: int = 2,
    folder: str = "backups",
) -> tuple[BackingUp, BackupFolder, BackupRecord]:
    where = BackupFolder(data_dir.parent / folder, identity_of(data_dir))
    record = BackupRecord(BackupPlan(folder=where, every_hours=24, keep=keep))
    command = command or (*PROGRAM, "--data-dir", str(data_dir))
    return BackingUp(command, clock, record), where, record


async def test_a_plan_that_a_reload_brings_is_followed_from_then_on(data_dir: Path) -> None:
    clock = HandClock()
    job, _, record = job_of(data_dir, clock)
    plan, record.plan = record.plan, None
    assert plan is not None
    assert not await job.run(), "nothing was asked for"
    below = BackupFolder(data_dir.parent / "not-mounted" / "backups", identity_of(data_dir))
    record.plan = BackupPlan(folder=below, every_hours=24, keep=2)
    assert not await job.run()
    assert not await job.run(), "the next try waits"
    assert record.failures == 1
    record.plan = plan
    assert await job.run(), "but not for a plan that is mended"
    assert len(plan.folder.kept()) == 1


async def test_one_is_made_when_the_newest_is_too_old(data_dir: Path) -> None:
    clock = HandClock()
    job, folder, record = job_of(data_dir, clock)
    assert await job.run()
    assert record.last_success_s == START_MS / 1000
    [made] = folder.kept()
    assert made.made_at_ms == START_MS
    assert read_manifest(Path(made.path)).entries > 0
    assert not await job.run()
    clock.ms += 23 * HOUR_MS
    again, _, after_restart = job_of(data_dir, clock)
    assert not await again.run(), "a restart is no reason"
    assert after_restart.last_success_s > 0
    assert after_restart.failures == 0
    clock.ms += 3 * 24 * HOUR_MS
    assert await again.run(), "and what was missed while it was off is made up for, once"
    assert not await again.run()
    for _ in range(3):
        clock.ms += 24 * HOUR_MS
        assert await again.run()
    kept = folder.kept()
    assert len(kept) == 2
    assert kept[0].made_at_ms == clock.ms


async def test_one_of_the_future_is_no_reason_to_wait(data_dir: Path) -> None:
    clock = HandClock(START_MS + 9000 * HOUR_MS)
    job, folder, _ = job_of(data_dir, clock, keep=1)
    assert await job.run()
    clock.ms = START_MS
    assert await job.run(), "the clock was wrong then"
    assert [each.made_at_ms for each in folder.kept()] == [START_MS]


async def test_a_failure_is_told_and_tried_again_in_a_few_minutes(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    job, folder, record = job_of(data_dir, clock)
    good = folder.path / "other.tar"
    folder.make()
    good.write_bytes(b"not ours")
    (data_dir / "turnpike.db").rename(data_dir / "away.db")
    assert not await job.run()
    assert record.failures == 1
    assert "no backup was made" in caplog.text
    assert "no database" in caplog.text
    assert "Error:" not in caplog.text
    (data_dir / "away.db").rename(data_dir / "turnpike.db")
    clock.ms += int(back_up.RETRY_S * 1000) - 1
    assert not await job.run()
    assert record.failures == 1
    clock.ms += 1
    assert await job.run()
    assert record.failures == 1
    assert good.exists()


async def test_a_disk_that_is_not_mounted_is_a_failure(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job, _, record = job_of(data_dir, HandClock(), folder="disk/backups")
    assert not await job.run()
    assert record.failures == 1
    assert "Mount its disk" in caplog.text
    assert not (data_dir.parent / "disk").exists()


async def test_what_a_crash_left_is_removed(data_dir: Path) -> None:
    job, folder, _ = job_of(data_dir, HandClock())
    folder.make()
    left = folder.path / f".{folder.target(START_MS).name}.xyz.tmp"
    left.mkdir()
    (left / "turnpike.db").write_bytes(b"half of it")
    long_ago = time.time() - 2 * LEFTOVER_AGE_S
    for path in (left / "turnpike.db", left):
        os.utime(path, (long_ago, long_ago))
    assert await job.run()
    assert not left.exists()


async def test_the_loop_goes_on_meanwhile_and_a_stop_ends_it(data_dir: Path) -> None:
    """The process is on its own; a server that stops takes it along."""
    pid_file = data_dir / "pid"
    command = (
        *(sys.executable, "-c"),
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)",
    )
    job, _, record = job_of(data_dir, HandClock(), command=command)
    running = asyncio.create_task(job.run())
    async with asyncio.timeout(20):
        while not (pid_file.exists() and pid_file.read_text()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    pid = int(pid_file.read_text())
    if hasattr(os, "getpriority"):
        assert os.getpriority(os.PRIO_PROCESS, pid) >= 10
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(20):
        while _alive(pid):  # noqa: ASYNC110  (a process of its own has no event)
            await asyncio.sleep(0.01)
    assert record.failures == 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_is_in_the_table(data_dir: Path) -> None:
    from dataclasses import replace

    from app.jobs.schedule import table

    job, _, _ = job_of(data_dir, HandClock())
    async with opened(data_dir / "turnpike.db") as books:
        crew = replace(crew_of(books, TwoClocks()), backing_up=job)
        (line,) = [each for each in table(crew) if each.name == "back up"]
    assert line.at_start
    assert line.every_s <= 60


@pytest.mark.skipif(sys.platform != "linux", reason="the score is Linux's")
async def test_the_kernel_takes_the_backup_before_the_server(tmp_path: Path) -> None:
    """Its process raises the score itself no more than it lowers it: the server writes it."""
    clock, said = HandClock(), tmp_path / "score"
    code = (
        "import pathlib, time\n"
        "time.sleep(0.5)\n"
        f"pathlib.Path({str(said)!r}).write_text(\n"
        "    pathlib.Path('/proc/self/oom_score_adj').read_text())\n"
        "raise SystemExit('enough')\n"
    )
    async with opened(tmp_path / "data" / "turnpike.db"):
        pass
    job, _, record = job_of(tmp_path / "data", clock, command=(sys.executable, "-c", code))
    assert not await job.run()
    assert record.failures == 1
    ours = int(await asyncio.to_thread(Path("/proc/self/oom_score_adj").read_text))
    assert int(said.read_text()) == min(1000, ours + 300)
