"""Settings of the whole suite."""

from pathlib import Path

import pytest
from hypothesis import settings

# Two busy cores make any time limit flaky; the suite's own time-out bounds a test.
settings.register_profile("turnpike", deadline=None)
settings.load_profile("turnpike")


@pytest.fixture(scope="session")
def minilm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """all-MiniLM-L6-v2 as a GGUF file, made here from the weights in a package."""
    from tests.local_runtime import bert

    return bert.minilm().write(tmp_path_factory.mktemp("minilm") / "minilm.gguf", bert.MEAN)


@pytest.fixture(scope="session")
def reranker_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cross encoder with random weights (``bert.small(head=True)``) as a GGUF file."""
    from tests.local_runtime import bert

    reranker = bert.small(head=True)
    return reranker.write(tmp_path_factory.mktemp("reranker") / "reranker.gguf", bert.RANK)
