"""What a folder of safetensors says of itself, and what is refused before torch hears of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.torch_tasks.config import ConfigRefused, EncoderConfig, read_config
from local_runtime.engines.torch_tasks.folder import (
    files_read,
    parts_of,
    read_folder,
    weights_in,
)
from local_runtime.engines.torch_tasks.serving import batch_bytes, host_bytes
from local_runtime.kinds import Kind
from tests.local_runtime.engines.torch_tasks.hub_folder import (
    CLASSES,
    MODULES,
    HubModel,
    write_json,
)


@pytest.mark.parametrize("family", CLASSES)
def test_every_family_is_read(tmp_path: Path, family: str) -> None:
    path = HubModel(family).write(tmp_path / "model")
    folder = read_folder(path)
    config = folder.config
    assert (config.family, config.width, config.layers, config.heads) == (family, 32, 2, 4)
    assert config.context_length == (40 if family in {"bert", "distilbert"} else 38)
    assert (folder.pooling, folder.kind) == ("mean", Kind.EMBEDDING)
    assert weights_in(path.parent) == path
    assert {each.name for each in files_read(path) if each.exists()} == {
        *("config.json", "model.safetensors", "modules.json", "tokenizer.json")
    }
    assert host_bytes(folder, 38) > path.stat().st_size + batch_bytes(config, 38)


def test_a_head_makes_it_a_reranker(tmp_path: Path) -> None:
    path = HubModel(head=True).write(tmp_path / "model")
    assert read_folder(path).kind is Kind.RERANK


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "not among those"),
        ({"architectures": ["BertModel", "BertModel"]}, "not among those"),
        ({"architectures": "BertModel"}, "not among those"),
        ({"model_type": "roberta"}, "does not go with"),
        ({"auto_map": {"AutoModel": "modeling.Own"}}, "never run"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "__import__"}, "__import__"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 2**40}, "hidden_size"),
        ({"num_hidden_layers": 257}, "num_hidden_layers"),
        ({"num_attention_heads": 3}, "divided"),
        ({"max_position_embeddings": 4}, "no room"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
    ],
)
def test_a_configuration_that_cannot_be_served(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = tmp_path / "config.json"
    write_json(path, HubModel().config() | change)
    with pytest.raises(ConfigRefused, match=said):
        read_config(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(HubModel().config())), JSON, min_size=1))
def test_any_configuration_is_read_within_bounds_or_refused(change: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "config.json")
        write_json(path, HubModel().config() | change)
        try:
            config = read_config(path)
        except ConfigRefused as refused:
            assert len(str(refused)) < 1000
            return
    assert isinstance(config, EncoderConfig)
    assert 1 <= config.width <= 16_384 and config.width % config.heads == 0
    assert 8 <= config.context_length <= 131_072
    assert config.layers <= 256 and config.inner <= 65_536 and config.vocab <= 4_000_000


@pytest.mark.parametrize(
    ("modules", "mode", "said"),
    [
        (None, {}, "no modules.json"),
        ([], {}, "no list of modules"),
        ({"a": 1}, {}, "no list of modules"),
        (MODULES[:1], {}, "no module for pooling"),
        ([{"type": "evil.code.Pooling", "path": "1_Pooling"}], {}, "not served here"),
        ([*MODULES, {"type": "sentence_transformers.models.Dense", "path": "3"}], {}, "Dense"),
        ([MODULES[0], {**MODULES[1], "path": "../1_Pooling"}], {}, "one folder"),
        ([MODULES[0], {**MODULES[1], "path": "9_Pooling"}], {}, "9_Pooling/config.json is missing"),
        ([{**MODULES[0], "path": "0_T"}, MODULES[1]], {}, "'0_T'"),
        (MODULES, {"pooling_mode_max_tokens": True}, "its way of pooling"),
        (MODULES, {"pooling_mode_mean_tokens": False}, "none"),
        (MODULES, {"pooling_mode_mean_tokens": False, "pooling_mode_x": True}, "pooling_mode_x"),
    ],
)
def test_pooling_must_be_told(
    tmp_path: Path, modules: object, mode: dict[str, Any], said: str
) -> None:
    path = HubModel().write(tmp_path / "model")
    (path.parent / "modules.json").unlink()
    if modules is not None:
        write_json(path.parent / "modules.json", modules)
    place = path.parent / "1_Pooling" / "config.json"
    write_json(place, json.loads(place.read_text()) | mode)
    with pytest.raises(ConfigRefused, match=said):
        read_folder(path)


def test_newer_names_of_pooling(tmp_path: Path) -> None:
    path = HubModel().write(tmp_path / "model")
    write_json(path.parent / "1_Pooling" / "config.json", {"pooling_mode": "lasttoken"})
    assert read_folder(path).pooling == "last"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", b"", "empty"),
        ("config.json", b"[" * 50 + b"]" * 50, "nested"),
        ("config.json", b"[]", "no object"),
        ("config.json", b"{", "not valid JSON"),
        ("tokenizer.json", b"{", "not valid JSON"),
        ("tokenizer.json", b"{}", "not known"),
        ("tokenizer.json", b'{"model": {"type": "Pickle"}}', "Pickle"),
        ("tokenizer.json", b"[" * 99 + b"]" * 99, "nested"),
        ("model.safetensors", b"PK\x03\x04 a pickle in a zip", "header"),
    ],
)
def test_files_that_are_not_what_they_are_called(
    tmp_path: Path, file: str, content: bytes, said: str
) -> None:
    path = HubModel().write(tmp_path / "model")
    (path.parent / file).write_bytes(content)
    with pytest.raises(ConfigRefused, match=said):
        read_folder(path)
    (path.parent / file).unlink()
    with pytest.raises((ConfigRefused, OSError)):
        read_folder(path)


def test_a_head_for_classes_is_no_reranker(tmp_path: Path) -> None:
    path = HubModel(head=True).write(tmp_path / "model")
    config = HubModel(head=True).config() | {"id2label": {str(n): "x" for n in range(3)}}
    write_json(path.parent / "config.json", config)
    with pytest.raises(ConfigRefused, match="3 classes"):
        read_folder(path)


def test_parts_of_weights() -> None:
    first = Path("model-00001-of-00003.safetensors")
    assert [each.name[6:11] for each in parts_of(first)] == ["00001", "00002", "00003"]
    assert len(parts_of(Path("m-00001-of-99999.safetensors"))) == 1000
    assert parts_of(Path("model.safetensors")) == [Path("model.safetensors")]
