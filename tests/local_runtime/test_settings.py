"""How a model is configured to run reaches its engine, or is refused in words at the start."""

import pytest

from local_runtime.runtime import LocalModelSpec, LocalRuntime, RuntimeConfigError
from tests.local_runtime.calls import MODEL, SMOLLM_SOURCE


def spec(**fields: object) -> LocalModelSpec:
    return LocalModelSpec(id=MODEL, source=SMOLLM_SOURCE, **fields)  # type: ignore[arg-type]


def test_settings_reach_the_engine() -> None:
    runtime = LocalRuntime(
        [spec(sequences_max=3, batch_tokens=64, cache_type="q8_0", gpu_layers=0, threads=1)]
    )
    found = runtime.models[MODEL].engine_spec
    assert (found.sequences_max, found.batch_tokens, found.cache_type) == (3, 64, "q8_0")
    assert (found.gpu_layers, found.threads, found.flash_attention) == (0, 1, None)
    assert found.context_length == runtime.models[MODEL].context_length


def test_the_context_is_chosen_from_the_model_and_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert LocalRuntime([spec()]).models[MODEL].context_length == 8192
    monkeypatch.setattr("local_runtime.runtime.available_bytes", lambda: 300 << 20)
    assert LocalRuntime([spec()]).models[MODEL].context_length < 8192
    assert LocalRuntime([spec(context_length=8192)]).models[MODEL].context_length == 8192


def test_what_cannot_be_is_refused_at_the_start() -> None:
    with pytest.raises(RuntimeConfigError, match=rf"{MODEL}: .*flash_attention = false"):
        LocalRuntime([spec(cache_type="q4_0", flash_attention=False)])
    # A model that is too large is no reason not to serve the others.
    LocalRuntime([spec(), LocalModelSpec(id="b", source="fake:")], memory_bytes_max=1 << 20)
    with pytest.raises(RuntimeConfigError, match="trained for 8192 tokens"):
        LocalRuntime([spec(context_length=9000)])
