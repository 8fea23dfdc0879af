"""An imported file is the store's own: what is written to the original later is not in it."""

import errno
import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_runtime.store import copying
from local_runtime.store.blobs import Blobs, StoreError
from local_runtime.store.catalog import Store
from local_runtime.store.copying import add, clone, copied
from local_runtime.store.importing import import_path
from local_runtime.store.names import StoreName
from tests.local_runtime.store import gguf_files


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "models")


def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-Q4_0.gguf"
    path.write_bytes(gguf_files.whole(5000))
    path.chmod(0o644)
    return path


def spoil(path: Path) -> None:
    """As an editor would that writes in place."""
    with path.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"X" * 10)


def test_editing_the_original_later_does_not_change_the_stores_file(tmp_path: Path) -> None:
    store, path = Store(tmp_path / "models"), model(tmp_path)
    before = path.read_bytes()
    manifest = import_path(store, path)
    spoil(path)
    assert store.weights_path(store.get(StoreName("tiny"))).read_bytes() == before
    assert store.blobs.digest_of(manifest.files[0].sha256) == manifest.files[0].sha256


def test_a_link_that_was_asked_for_is_the_very_file(tmp_path: Path) -> None:
    """With all that comes of it, which is why it has to be asked for; the check finds it out."""
    store, path = Store(tmp_path / "models"), model(tmp_path)
    manifest = import_path(store, path, link=True)
    assert store.weights_path(manifest).stat().st_ino == path.stat().st_ino
    spoil(path)
    assert store.blobs.digest_of(manifest.files[0].sha256) != manifest.files[0].sha256


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=5000), link=st.booleans())
def test_name_size_and_content_are_those_of_the_file(
    blobs: Blobs, tmp_path: Path, content: bytes, link: bool
) -> None:
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    told: list[int] = []
    digest, size = add(blobs, path, link=link, tell=told.append)
    assert (digest, size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert blobs.path(digest).read_bytes() == content
    assert told == sorted(told) and (told or [0])[-1] == len(content)
    assert list(blobs.partial.iterdir()) == []
    assert add(blobs, path, link=link) == (digest, size), "again is the same"


def test_a_copy_says_how_far_it_is(blobs: Blobs, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(9 << 20))
    told: list[int] = []
    add(blobs, path, tell=told.append)
    assert told == [4 << 20, 8 << 20, 9 << 20]


def test_a_disk_without_room_is_told_before_anything_is_written(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _at: usage._replace(free=4000))
    with pytest.raises(StoreError, match=r"--link"):
        add(blobs, path)
    assert list(blobs.partial.iterdir()) == []
    add(blobs, path, link=True)  # takes none


def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = model(tmp_path)
    with monkeypatch.context() as patched, pytest.raises(StoreError, match="make room"):
        patched.setattr("os.write", full)
        add(blobs, path)
    assert list(blobs.partial.iterdir()) == [] and list(blobs.every()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the call is Linux's")
def test_a_clone_is_one_or_is_refused(tmp_path: Path) -> None:
    """Where the disk cannot, as ext4 cannot, it says so and nothing was written."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 100_000)
    with source.open("rb") as one, target.open("w+b") as other:
        could = clone(one.fileno(), other.fileno())
    assert target.stat().st_size == (100_000 if could else 0)


def test_what_a_clone_brought_is_hashed_as_it_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The branch of disks that share, on one that may not: the clone is played by a copy."""

    def played(source: int, target: int) -> bool:
        os.pwrite(target, os.pread(source, 1 << 20, 0), 0)
        return True

    monkeypatch.setattr(copying, "clone", played)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"y" * 5000)
    told: list[int] = []
    assert copied(source, target, told.append) == hashlib.sha256(b"y" * 5000).hexdigest()
    assert (target.read_bytes(), told) == (b"y" * 5000, [5000])
