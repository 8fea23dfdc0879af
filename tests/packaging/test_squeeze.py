"""Archives: what is in them is what was in the folder, and nothing but that decides their bytes."""

import gzip
import io
import os
import random
import tarfile
import zlib
from pathlib import Path

import pytest

from squeeze import Squeezer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small and large files, links of both kinds, and a program."""
    place = tmp_path / "folder"
    (place / "inner" / "empty").mkdir(parents=True)
    (place / "large").write_bytes(random.Random(1).randbytes(9_000_001))
    (place / "even").write_bytes(b"x" * 4 * 1024 * 1024)
    (place / "small").write_text("small")
    (place / "inner" / "nothing").write_text("")
    (place / "program").write_text("#!/bin/sh\n")
    (place / "program").chmod(0o700)
    (place / "inner" / "link").symlink_to("../small")
    os.link(place / "small", place / "twin")
    return place


def test_it_unpacks_to_what_it_was(folder: Path, tmp_path: Path) -> None:
    packed = Squeezer().packed(folder, "turnpike-1", 1_700_000_000)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path / "out", filter="data")
        assert {each.mtime for each in archive} == {1_700_000_000}
        assert {each.mode for each in archive if each.isfile()} == {0o644, 0o755}
    out = tmp_path / "out" / "turnpike-1"
    for path in sorted(folder.rglob("*")):
        there = out / path.relative_to(folder)
        assert there.is_symlink() == path.is_symlink()
        if path.is_file():
            assert there.read_bytes() == path.read_bytes()
    assert os.access(out / "program", os.X_OK)
    assert len(gzip.decompress(packed)) % tarfile.BLOCKSIZE == 0


def test_the_same_content_gives_the_same_bytes(folder: Path) -> None:
    used = Squeezer()
    first = used.packed(folder, "a", 1)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (5, 5))
    assert used.packed(folder, "a", 1) == first == Squeezer().packed(folder, "a", 1)
    other = used.packed(folder, "b", 1)
    assert other != first
    assert other[-8:-4] == zlib.crc32(gzip.decompress(other)).to_bytes(4, "little")
    (folder / "small").write_text("Small")
    assert used.packed(folder, "a", 1) != first


def test_the_size_is_about_that_of_one_piece(folder: Path) -> None:
    plain = Squeezer().packed(folder, "", 1)
    assert len(plain) < 1.01 * len(zlib.compress(gzip.decompress(plain), 6))
