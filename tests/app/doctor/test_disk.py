"""Room, rights and speed of the disks."""

import os
from pathlib import Path

import msgspec
import pytest

from app.config import Config
from app.config_operations import Backups, Disk
from app.doctor import disk
from app.doctor.disk import check_disk, existing
from app.storage.disk import BALLAST
from tests.app.doctor.patients import at, problems, wrong


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "data").mkdir(mode=0o700)
    return msgspec.structs.replace(at(Config(), tmp_path / "data"), disk=Disk(free_bytes_min=1))


def test_a_disk_with_room(config: Config) -> None:
    found = check_disk(config, database_bytes=1)
    assert wrong(found) <= {"disk.slow"}
    assert {"disk.ok"} <= {each.code for each in found}
    assert list(config.data_dir().iterdir()) == []


def test_a_disk_without(config: Config) -> None:
    full = msgspec.structs.replace(config, disk=Disk(free_bytes_min=1 << 60))
    assert "disk.full" in problems(check_disk(full, database_bytes=1))
    free = disk.free_bytes(config.data_dir())
    low = msgspec.structs.replace(config, disk=Disk(free_bytes_min=free // 2))
    found = check_disk(low, database_bytes=1)
    assert "disk.low" in wrong(found) - problems(found)


def test_the_ballast_of_a_running_server(config: Config) -> None:
    def codes(running: bool) -> set[str]:
        return wrong(check_disk(config, database_bytes=0, running=running)) - {"disk.slow"}

    assert codes(running=False) == set()
    assert codes(running=True) == {"disk.no_ballast"}
    (config.data_dir() / BALLAST).touch()
    assert codes(running=True) == set()


def test_backups_need_room_for_the_database(config: Config, tmp_path: Path) -> None:
    with_folder = msgspec.structs.replace(config, backups=Backups(folder=str(tmp_path / "b")))
    assert "disk.full" not in wrong(check_disk(with_folder, database_bytes=1))
    assert "disk.full" in wrong(check_disk(with_folder, database_bytes=1 << 60))


def test_a_folder_that_is_not_there_yet_will_be_made(tmp_path: Path) -> None:
    found = check_disk(at(Config(), tmp_path / "a" / "b"), database_bytes=0)
    assert "which will be made" in found[0].text
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_a_folder_that_cannot_be_written(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if os.geteuid() == 0:  # whom no mode holds back
        monkeypatch.setattr(os, "access", lambda path, _how: Path(path) != config.data_dir())
    else:
        config.data_dir().chmod(0o500)
    found = check_disk(config, database_bytes=0)
    assert problems(found) == {"disk.unwritable"}
    assert "chmod u+wx" in found[0].fix


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    found = check_disk(at(Config(), tmp_path / "data"), database_bytes=0)
    assert problems(found) == {"disk.unwritable"}


def test_slow_disks_and_such_that_fail(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "SYNC_MS_SLOW", 0.0)
    assert "disk.slow" in wrong(check_disk(config, database_bytes=0))

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    assert "disk.sync_failed" in problems(check_disk(config, database_bytes=0))
