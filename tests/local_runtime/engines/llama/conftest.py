"""One loaded engine for all tests of this folder."""

from collections.abc import Iterator

import pytest

from local_runtime.engines.contract import EngineSpec
from local_runtime.engines.llama.engine import LlamaEngine
from tests.local_runtime.calls import smollm_path
from tests.local_runtime.engines.llama.driving import CONTEXT_LENGTH, SEQUENCES_MAX


@pytest.fixture(scope="session")
def loaded() -> Iterator[LlamaEngine]:
    engine = LlamaEngine()
    engine.load(
        EngineSpec(
            engine="llama",
            path=str(smollm_path()),
            context_length=CONTEXT_LENGTH,
            threads=1,
            sequences_max=SEQUENCES_MAX,
        ),
        lambda _fraction: None,
    )
    yield engine
    engine.unload()


@pytest.fixture
def engine(loaded: LlamaEngine) -> Iterator[LlamaEngine]:
    """The loaded engine, idle before and after, with nothing left behind."""
    yield loaded
    assert not loaded.has_work
    assert loaded._slots.free == SEQUENCES_MAX
    assert not loaded._voices
