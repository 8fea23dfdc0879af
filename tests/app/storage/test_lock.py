"""One process per data directory."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from app.errors import AlreadyRunning, ConfigError
from app.storage.lock import LOCK_NAME, DataDirLock

HOLD = """
import sys
from pathlib import Path
from app.storage.lock import DataDirLock
lock = DataDirLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with pytest.raises(AlreadyRunning, match=rf"\(process {process.pid}\).*--data-dir"):
            DataDirLock(tmp_path).acquire()
        process.communicate("")
    with DataDirLock(tmp_path):
        assert (tmp_path / LOCK_NAME).read_text() == f"{os.getpid()}\n"


def test_the_lock_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
        with DataDirLock(tmp_path):
            pass


def test_it_is_refused_within_one_process_too(tmp_path: Path) -> None:
    with DataDirLock(tmp_path), pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        DataDirLock(tmp_path).acquire()
    with DataDirLock(tmp_path):
        pass


def test_the_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with DataDirLock(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / LOCK_NAME).stat().st_mode) == 0o600


def test_an_impossible_directory_is_the_configurations_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"server\.data_dir"):
        DataDirLock(tmp_path / "file").acquire()


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EROFS, "Mount it for writing"),
        (errno.EACCES, "must belong to the user"),
        (errno.ENOSPC, "Make room"),
        (errno.ENOTDIR, "another directory"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def cannot(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", cannot)
    with pytest.raises(ConfigError, match=advice):
        DataDirLock(tmp_path).acquire()
