"""A log file: its mode, when it is put aside, and what a full disk does to it."""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.logs.file import LogFile
from tests.app.logs.writing import record

BYTES_MAX = 100_000


@pytest.fixture(autouse=True)
def _quiet(own_logging: None) -> None:
    logging.raiseExceptions = False


def log_file(path: Path, bytes_max: int = BYTES_MAX, kept: int = 3) -> LogFile:
    made = LogFile(path, bytes_max=bytes_max, kept=kept)
    made.setFormatter(logging.Formatter("%(message)s"))
    return made


def test_it_is_for_its_owner_alone_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    before = os.umask(0)
    try:
        for line in ("one", "two"):
            file = log_file(path)
            file.handle(record(line))
            file.close()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == "one\ntwo\n"


def test_it_is_put_aside_when_it_is_full_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    file = log_file(path, bytes_max=100, kept=2)
    for number in range(100):
        file.handle(record(f"line {number:03d}"))
    file.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["t.log", "t.log.1", "t.log.2"]
    found = "".join((tmp_path / name).read_text() for name in ("t.log.2", "t.log.1", "t.log"))
    lines = found.splitlines()
    assert lines == [f"line {number:03d}" for number in range(100 - len(lines), 100)]
    assert len(lines) > 22
    for each in tmp_path.iterdir():
        assert each.stat().st_size <= 100
        assert each.stat().st_mode & 0o777 == 0o600


def test_a_line_longer_than_the_file_may_be_is_written_whole(tmp_path: Path) -> None:
    file = log_file(tmp_path / "t.log", bytes_max=50)
    for word in ("a", "b" * 200, "c"):
        file.handle(record(word))
    file.close()
    assert (tmp_path / "t.log.1").read_text() == "b" * 200 + "\n"
    assert (tmp_path / "t.log").read_text() == "c\n"
    assert file.lost == 0


def test_a_file_that_somebody_emptied_is_not_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    file = log_file(path, bytes_max=100)
    for _ in range(8):
        file.handle(record("123456789"))
    os.truncate(path, 0)  # as logrotate's copytruncate does
    for _ in range(8):
        file.handle(record("abcdefghi"))
    file.close()
    assert path.read_text() == "abcdefghi\n" * 8
    assert not (tmp_path / "t.log.1").exists()


def test_where_it_cannot_be_put_aside_it_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    (tmp_path / "t.log.1").mkdir()  # in the way of the renaming, for root too
    (tmp_path / "t.log.1" / "x").touch()
    file = log_file(path, bytes_max=100, kept=1)
    for number in range(50):
        file.handle(record(f"line {number:03d}"))
    file.close()
    assert path.read_text().splitlines() == [f"line {number:03d}" for number in range(50)]
    assert file.lost == 0


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    file = log_file(tmp_path / "t.log", bytes_max=20_000, kept=50)

    def write(letter: str) -> None:
        for _ in range(500):
            file.handle(record(letter * 99))

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    file.close()
    lines = [line for each in tmp_path.iterdir() for line in each.read_text().splitlines()]
    assert len(lines) == 2000
    assert all(len(line) == 99 and len(set(line)) == 1 for line in lines)
    assert file.lost == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere/t.log", "there is no folder"), (".", "is not a file"), ("f/t.log", "no folder")],
)
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigError, match=rf"^logs\.file: .*{says}"):
        log_file(tmp_path / name)


def test_a_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a file"):
        log_file(Path("/dev/null"))


_FULL_DISK = """
import logging, os, pathlib, resource, signal, sys
from app.logs.file import LogFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit fails, as on a full disk
logging.raiseExceptions = False
file = LogFile(pathlib.Path(sys.argv[1]), bytes_max=10**9, kept=1)
file.setFormatter(logging.Formatter("%(message)s"))
logging.getLogger().handlers[:] = [file]
resource.setrlimit(resource.RLIMIT_FSIZE, (1005, resource.RLIM_INFINITY))
for number in range(100):
    logging.warning("%09d", number)
assert file.lost == 0 and os.path.getsize(sys.argv[1]) == 1000
for number in range(100, 110):
    logging.warning("%09d", number)
assert file.lost == 10, file.lost
assert os.path.getsize(sys.argv[1]) == 1005
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for number in range(110, 120):
    logging.warning("%09d", number)
print(file.lost)
"""


def test_a_full_disk_loses_lines_says_so_once_and_takes_nobody_down(tmp_path: Path) -> None:
    path = tmp_path / "t.log"
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("10\n", 0), done.stderr
    assert done.stderr.count("could not be written") == 1
    assert "Traceback" not in done.stderr
    whole = [f"{number:09d}" for number in (*range(100), *range(110, 120))]
    assert path.read_text().splitlines() == [*whole[:100], "00000", *whole[100:]]
