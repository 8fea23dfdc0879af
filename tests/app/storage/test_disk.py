"""The disk that fills up: new calls are refused in time, and the ballast lets settlements through.

Real disks: tmpfs of a few megabytes in a mount namespace of their own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.storage.disk import BALLAST, DiskWatch
from tests.small_disk import CAN_MOUNT, SmallDisk, small_disk

MIB = 1 << 20
pytestmark = pytest.mark.skipif(not CAN_MOUNT, reason="needs a mount namespace")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 16 * MIB) as found:
        yield found


def watch_of(disk: SmallDisk, least: int = 4 * MIB, ballast: int = 2 * MIB) -> DiskWatch:
    return DiskWatch(disk.path, free_bytes_min=least, ballast_bytes=ballast)


def test_the_ballast_takes_up_room(disk: SmallDisk) -> None:
    watch = watch_of(disk)
    free = watch.free()
    watch.start()
    assert free - watch.free() >= 2 * MIB
    assert (disk.path / BALLAST).exists()
    assert not watch.low
    assert watch.refusal() is None
    assert (disk.path / BALLAST).stat().st_mode & 0o777 == 0o600
    watch.look()
    assert (disk.path / BALLAST).stat().st_size == 2 * MIB
    smaller = watch_of(disk, ballast=MIB)
    smaller.start()
    assert (disk.path / BALLAST).stat().st_size == MIB
    watch_of(disk, ballast=0).start()
    assert not (disk.path / BALLAST).exists()


def test_where_nothing_can_be_reserved_noise_is_written(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: int) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    watch = watch_of(disk)
    free = watch.free()
    watch.start()
    assert free - watch.free() >= 2 * MIB


def test_with_little_room_no_call_is_taken_until_there_is_more(
    disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    watch = watch_of(disk)
    watch.start()
    disk.fill(leave=3 * MIB)
    for _ in range(3):
        watch.look()
    refusal = watch.refusal()
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.retry_after_s) == (503, "ledger_unavailable", 30)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "free_bytes_min under [disk]" in said
    assert "remove what is not needed" in said
    assert (disk.path / BALLAST).exists(), "it is for when the disk is full"
    disk.empty()
    watch.look()
    assert watch.refusal() is None


def test_the_ballast_is_not_made_where_it_would_make_the_disk_low(disk: SmallDisk) -> None:
    disk.fill(leave=5 * MIB)
    watch = watch_of(disk)
    watch.start()
    assert ((disk.path / BALLAST).exists(), watch.low) == (False, False)
    disk.empty()
    watch.look()
    assert (disk.path / BALLAST).exists()


def test_a_start_on_a_full_disk_gives_the_ballast_up(disk: SmallDisk) -> None:
    watch_of(disk).start()
    disk.fill(leave=0)
    again = watch_of(disk)
    again.start()
    assert again.low
    assert not (disk.path / BALLAST).exists()
    assert again.free_bytes >= MIB


def test_it_is_given_up_once(disk: SmallDisk, caplog: pytest.LogCaptureFixture) -> None:
    watch = watch_of(disk)
    watch.start()
    assert watch.make_room()
    assert watch.low
    assert not watch.make_room()
    assert caplog.text.count("was given up") == 1


def work(disk: SmallDisk, how: str) -> dict[str, Any]:
    """Let a process write to a database on the disk until it is full, and beyond."""
    command = disk.inside(sys.executable, "-m", "tests.app.storage.full_disk_worker")
    done = subprocess.run(
        [*command, str(disk.place), how], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("how", ["at the commit", "in the middle"])
def test_a_group_that_meets_the_full_disk_is_written_all_the_same(
    disk: SmallDisk, how: str
) -> None:
    """The log of a full disk cannot grow. Nobody who wrote sees anything of it, and the unit that
    failed for a reason of its own still does."""
    found = work(disk, how)
    assert found["numbers"] == list(range(1, 41))
    assert found["refused"] == "IntegrityError"
    assert (found["had_ballast"], found["has_ballast"]) == (True, False)
    assert found["stopped"] is False
    assert found["rows"] == 40
    assert found["integrity"] == "ok"


def test_when_the_ballast_is_used_up_the_ledger_stops(disk: SmallDisk) -> None:
    found = work(disk, "until it stops")
    assert found["stopped"] is True
    assert found["refused"] == "LedgerUnavailable"
    assert len(found["numbers"]) > 20
    assert found["rows"] == len(found["numbers"]), "what was acknowledged is there, and no more"
    assert found["integrity"] == "ok"
