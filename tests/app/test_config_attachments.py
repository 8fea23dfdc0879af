"""LoRA adapters and projectors in the configuration."""

from typing import Any

import pytest

from app.config import parse
from app.errors import ConfigError

ADAPTER = {"id": "acme/poems", "source": "file:/models/poems.gguf"}


def local(**changes: Any) -> dict[str, Any]:
    model = {"id": "acme/tiny", "source": "file:/models/tiny.gguf", **changes}
    return {"local": {"models": [model]}}


def test_they_are_read() -> None:
    raw = local(projector="file:/models/mmproj.gguf", adapters=[{**ADAPTER, "scale": 0.5}])
    (model,) = parse(raw, source="test").local.models
    assert model.projector == "file:/models/mmproj.gguf"
    assert [(each.id, each.scale) for each in model.adapters] == [("acme/poems", 0.5)]
    (plain,) = parse(local(), source="test").local.models
    assert (plain.projector, plain.adapters) == (None, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapters": [ADAPTER, ADAPTER]}, "local.models[0].adapters[1].id: 'acme/poems'"),
        ({"adapters": [{**ADAPTER, "id": "acme/tiny"}]}, "local.models[0].adapters[0].id"),
        ({"adapters": [{**ADAPTER, "source": "fake:"}]}, "local.models[0].adapters[0].source"),
        ({"adapters": [{**ADAPTER, "scale": 1000.0}]}, "local.models[0].adapters[0].scale"),
        ({"adapters": [{"id": "acme/poems"}]}, "local.models[0].adapters[0]"),
        ({"projector": "https://example.com/mmproj.gguf"}, "local.models[0].projector"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(local(**changes), source="test")
    assert words in str(caught.value)
