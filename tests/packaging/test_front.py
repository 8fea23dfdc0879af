"""The front of the one-file binary: what it unpacks, where to, and what it never does."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squeeze import Squeezer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the front is Linux's")

SOURCE = Path(__file__).resolve().parents[2] / "packaging" / "front.c"
DEEP, LONG = "deep" * 10, "long" * 20  # together more than a short name in the archive has room for
PROGRAM = """\
#!/bin/sh
echo "$0|$TURNPIKE_FILE|$*"
[ "$1" != stay ] || { echo here; exec sleep 60; }
"""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The compiled front."""
    program = tmp_path_factory.mktemp("front") / "front"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation"]
    done = subprocess.run(
        ["cc", *flags, "-o", program, SOURCE, "-l:libz.a"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and "libz.a" in done.stderr:
        pytest.skip("zlib's static library is not installed")
    assert done.returncode == 0, done.stderr
    return program.read_bytes()


def one_file(front: bytes, place: Path, content: str = "1") -> Path:
    """A binary whose program tells its name, its file and its arguments."""
    folder = place.with_suffix(".folder")
    (folder / "_internal" / DEEP).mkdir(parents=True)
    (folder / "turnpike").write_text(PROGRAM)
    (folder / "turnpike").chmod(0o755)
    (folder / "_internal" / DEEP / LONG).write_text(content)
    (folder / "_internal" / "link").symlink_to(DEEP)
    packed = Squeezer().packed(folder, "", 1_700_000_000)
    lengths = len(front).to_bytes(8, "little") + len(packed).to_bytes(8, "little")
    place.write_bytes(front + packed + b"TURNPIKE" + lengths)
    place.chmod(0o755)
    shutil.rmtree(folder)
    return place


def start(file: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [file, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def unpacked(base: Path) -> list[Path]:
    return sorted((base / "turnpike").iterdir())


def mounted(file: Path, place: Path, options: str, **environment: str) -> str:
    """What a start says where ``place`` is a file system with such options; 0 or 1 before it."""
    place.mkdir(exist_ok=True)
    script = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && { "$@" 2>&1; echo "status $?"; }'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", options, place, file],
        env=environment | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in done.stderr or "permission denied" in done.stderr:
        pytest.skip("mounting needs root")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_unpacks_once_and_becomes_the_program(front: bytes, tmp_path: Path) -> None:
    file = one_file(front, tmp_path / "turnpike")
    cache = tmp_path / "cache"
    first = start(file, "serve", "a b", XDG_CACHE_HOME=str(cache))
    assert first.returncode == 0, first.stderr
    (folder,) = unpacked(cache)
    name, carried, arguments = first.stdout.strip().split("|")
    assert (Path(name), Path(carried), arguments) == (folder / "turnpike", file, "serve a b")
    assert (folder / "_internal" / "link" / LONG).read_text() == "1"
    assert (folder / "turnpike").stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    before = folder.stat().st_ino
    assert start(file, XDG_CACHE_HOME=str(cache)).returncode == 0
    assert [each.stat().st_ino for each in unpacked(cache)] == [before]


def test_many_first_starts_at_once_leave_one_folder(front: bytes, tmp_path: Path) -> None:
    file = one_file(front, tmp_path / "turnpike")
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda _: start(file, XDG_CACHE_HOME=str(cache)), range(24)))
    assert {each.returncode for each in done} == {0}, [each.stderr for each in done]
    assert len(unpacked(cache)) == 1


def test_another_version_replaces_one_that_nobody_runs(front: bytes, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    old = one_file(front, tmp_path / "old", "old")
    new = one_file(front, tmp_path / "new", "new")
    with subprocess.Popen(
        [old, "stay"], env={"XDG_CACHE_HOME": str(cache)}, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert "|stay" in running.stdout.readline()
        assert running.stdout.readline() == "here\n"
        assert start(new, XDG_CACHE_HOME=str(cache)).returncode == 0
        assert len(unpacked(cache)) == 2
        running.kill()
    third = one_file(front, tmp_path / "third", "third")
    assert start(third, XDG_CACHE_HOME=str(cache)).returncode == 0
    (only,) = unpacked(cache)
    assert (only / "_internal" / DEEP / LONG).read_text() == "third"


def test_it_removes_what_it_unpacked_and_nothing_else(front: bytes, tmp_path: Path) -> None:
    """Built wheels of llama.cpp lie beside it, where a clone is built on the same machine."""
    place = tmp_path / "cache" / "turnpike"
    hour_ago = time.time() - 3600
    for name in ("wheels", "0123456789abcdef-1f", "0123456789abcdef-1f-77", "0123456789abcdex-1f"):
        (place / name).mkdir(parents=True)
        (place / name / "content").write_text("x")
        os.utime(place / name, (hour_ago, hour_ago))
    place.chmod(0o700)
    file = one_file(front, tmp_path / "turnpike")
    assert start(file, XDG_CACHE_HOME=str(tmp_path / "cache")).returncode == 0
    kept = [each.name for each in unpacked(tmp_path / "cache")]
    assert len(kept) == 3
    assert {"wheels", "0123456789abcdex-1f"} < set(kept)


def test_an_edition_says_how_much_room_it_needs(tmp_path: Path) -> None:
    program = tmp_path / "front"
    command = ["cc", "-DNEEDED_MIB=999999999", "-o", str(program), str(SOURCE), "-l:libz.a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and "libz.a" in done.stderr:
        pytest.skip("zlib's static library is not installed")
    file = one_file(program.read_bytes(), tmp_path / "turnpike")
    told = start(file, TURNPIKE_UNPACK_DIR=str(tmp_path / "cache"))
    assert told.returncode == 1
    assert "less than 999999999 MiB free" in told.stderr


@pytest.mark.parametrize("cut", [1, 100, 2000])
def test_a_file_that_is_not_whole_says_so(front: bytes, tmp_path: Path, cut: int) -> None:
    file = one_file(front, tmp_path / "turnpike")
    file.write_bytes(file.read_bytes()[:-cut])
    done = start(file, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "is incomplete. Copy it again" in done.stderr
    assert not (tmp_path / "cache").exists()


def test_a_damaged_file_says_so_and_leaves_nothing(front: bytes, tmp_path: Path) -> None:
    file = one_file(front, tmp_path / "turnpike")
    content = bytearray(file.read_bytes())
    content[len(front) + 200] ^= 1
    file.write_bytes(content)
    done = start(file, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "is damaged. Copy it again" in done.stderr
    assert unpacked(tmp_path / "cache") == []


def test_a_place_that_is_named_is_the_only_one(front: bytes, tmp_path: Path) -> None:
    file = one_file(front, tmp_path / "turnpike")
    (tmp_path / "file").write_text("no folder")
    done = start(file, TURNPIKE_UNPACK_DIR=str(tmp_path / "file"))
    assert done.returncode == 1
    assert "no place to unpack to" in done.stderr
    assert f"{tmp_path}/file/turnpike: " in done.stderr
    assert "TURNPIKE_UNPACK_DIR=" in done.stderr


def test_others_folders_are_not_trusted(front: bytes, tmp_path: Path) -> None:
    file = one_file(front, tmp_path / "turnpike")
    cache, home = tmp_path / "cache", tmp_path / "home"
    (cache / "turnpike").mkdir(parents=True)
    (cache / "turnpike").chmod(0o777)  # somebody else could put a program there
    home.mkdir()
    done = start(file, XDG_CACHE_HOME=str(cache), HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert unpacked(cache) == []
    assert len(unpacked(home / ".cache")) == 1


def test_a_link_in_place_of_the_folder_is_not_followed(front: bytes, tmp_path: Path) -> None:
    file = one_file(front, tmp_path / "turnpike")
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    shared.mkdir()
    shared.chmod(0o1777)
    elsewhere.mkdir()
    (shared / f"turnpike-{os.geteuid()}").symlink_to(elsewhere)
    done = start(file, TURNPIKE_UNPACK_DIR=str(shared))
    assert done.returncode == 1
    assert list(elsewhere.iterdir()) == []


def test_noexec_and_full_places_are_passed_over(front: bytes, tmp_path: Path) -> None:
    file = one_file(front, tmp_path / "turnpike")
    home, place = tmp_path / "home", tmp_path / "mounted"
    home.mkdir()
    said = mounted(
        file, place, "noexec,size=800m,mode=700", XDG_CACHE_HOME=str(place), HOME=str(home)
    )
    assert said.endswith("status 0\n")
    assert len(unpacked(home / ".cache")) == 1
    alone = mounted(file, place, "noexec,size=800m,mode=700", TURNPIKE_UNPACK_DIR=str(place))
    assert f"{place}/turnpike: mounted noexec" in alone
    full = mounted(file, place, "size=1m,mode=700", TURNPIKE_UNPACK_DIR=str(place))
    assert f"{place}/turnpike: less than 320 MiB free" in full
    assert full.endswith("status 1\n")
