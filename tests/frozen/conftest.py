"""The binaries in ``dist/``: ``make binary`` makes them, ``make test TESTS=tests/frozen`` tries
them."""

import json
import platform
import tarfile
from pathlib import Path

import pytest

import build

ROOT = Path(__file__).resolve().parents[2]


def made(suffix: str) -> Path:
    """The newest file in ``dist/`` whose name ends so."""
    name = f"turnpike-*-{platform.system().lower()}-{platform.machine()}{suffix}"
    found = sorted((ROOT / "dist").glob(name), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.skip("there is no binary; `make binary` makes it")
    return found[-1]


def unpacked(suffix: str, place: Path) -> tuple[Path, bool]:
    """An edition's folder, out of its archive, and whether it is made from this very code."""
    with tarfile.open(made(f"{suffix}.tar.gz")) as archive:
        archive.extractall(place, filter="data")
    (inside,) = place.iterdir()
    edition = json.loads((inside / "_internal" / "turnpike-edition.json").read_text())
    return inside, edition["source"] == build.source_digest(ROOT)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core edition's folder."""
    inside, is_of_this_code = unpacked("", tmp_path_factory.mktemp("folder"))
    if not is_of_this_code:
        pytest.fail("the binary is of another state of this clone; run `make binary` again")
    return inside


@pytest.fixture(scope="session")
def one_file(folder: Path) -> Path:
    """The core edition in one file."""
    return made("")


@pytest.fixture(scope="session")
def starter_file(folder: Path) -> Path:
    """The edition with a model inside, in one file."""
    return made("-starter")
