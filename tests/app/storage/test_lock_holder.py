"""Who holds a data directory, without taking it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.storage import lock_holder
from app.storage.lock import LOCK_NAME, DataDirLock
from app.storage.lock_holder import holder_of

HOLD = (
    "import sys; from pathlib import Path; from app.storage.lock import DataDirLock;"
    "lock = DataDirLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); input()"
)


@pytest.fixture(params=["table", "trial"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the system's table of locks, and on a system that has none."""
    if request.param == "trial":
        monkeypatch.setattr(lock_holder, "_LOCKS", tmp_path / "no such table")


@pytest.mark.usefixtures("way")
def test_nobody_then_somebody_then_nobody(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert holder_of(data) is None
    lock = DataDirLock(data)
    lock.acquire()
    assert holder_of(data) == os.getpid()
    lock.release()
    assert (data / LOCK_NAME).exists()
    assert holder_of(data) is None


@pytest.mark.usefixtures("way")
def test_another_process_and_after_it_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert holder_of(tmp_path) == other.pid
        other.kill()
        other.wait(10)
        assert holder_of(tmp_path) is None


def test_a_look_never_keeps_a_start_from_the_lock(tmp_path: Path) -> None:
    for _ in range(50):
        holder_of(tmp_path)
        with DataDirLock(tmp_path):
            assert holder_of(tmp_path) == os.getpid()
