"""What a Hub model's ``config.json`` says of an encoder, read by us: numbers within bounds, and an
allowlist of architectures. Nothing in it can name code, and nothing that it names is run.

Torch is not imported here: the router reads this to tell what a model is for and what it needs.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from local_runtime.store.nesting import depth_of

JSON_BYTES_MAX = 4 * 1024 * 1024
_DEPTH_MAX = 16
_LABELS_MAX = 10_000


class Family(StrEnum):
    """Encoders that are known here; the values are those of ``model_type``."""

    BERT = "bert"
    ROBERTA = "roberta"
    XLM_ROBERTA = "xlm-roberta"
    DISTILBERT = "distilbert"
    MPNET = "mpnet"


class Head(StrEnum):
    """What follows the last layer. ``POOLED``: BERT's, behind its pooler."""

    NONE = "none"
    POOLED = "pooled"
    ROBERTA = "roberta"
    DISTILBERT = "distilbert"


_ARCHITECTURES: dict[str, tuple[Family, Head]] = {
    "BertModel": (Family.BERT, Head.NONE),
    "BertForMaskedLM": (Family.BERT, Head.NONE),
    "BertForPreTraining": (Family.BERT, Head.NONE),
    "BertForSequenceClassification": (Family.BERT, Head.POOLED),
    "RobertaModel": (Family.ROBERTA, Head.NONE),
    "RobertaForMaskedLM": (Family.ROBERTA, Head.NONE),
    "RobertaForSequenceClassification": (Family.ROBERTA, Head.ROBERTA),
    "XLMRobertaModel": (Family.XLM_ROBERTA, Head.NONE),
    "XLMRobertaForMaskedLM": (Family.XLM_ROBERTA, Head.NONE),
    "XLMRobertaForSequenceClassification": (Family.XLM_ROBERTA, Head.ROBERTA),
    "DistilBertModel": (Family.DISTILBERT, Head.NONE),
    "DistilBertForMaskedLM": (Family.DISTILBERT, Head.NONE),
    "DistilBertForSequenceClassification": (Family.DISTILBERT, Head.DISTILBERT),
    "MPNetModel": (Family.MPNET, Head.NONE),
    "MPNetForMaskedLM": (Family.MPNET, Head.NONE),
}
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# DistilBERT has other words for the same.
_DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}


class ConfigRefused(Exception):
    """The folder is no model that can be served by torch; the text says why."""


class EncoderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Shapes of an encoder. ``positions`` are rows of its table of them, the first of which that a
    token has is ``position_first``; ``labels`` are the outputs of its head, 0 where it has none.
    ``buckets`` are those of MPNet's relative positions.
    """

    family: Family
    head: Head
    width: int
    layers: int
    heads: int
    inner: int
    positions: int
    position_first: int
    types: int
    vocab: int
    epsilon: float
    activation: str
    labels: int = 0
    buckets: int = 0

    @property
    def context_length(self) -> int:
        """The longest text, in tokens."""
        return self.positions - self.position_first

    @property
    def parameters(self) -> int:
        """About how many there are."""
        layer = 4 * self.width * self.width + 2 * self.width * self.inner
        return self.layers * layer + self.width * (self.vocab + self.positions + self.types)


def read_json(path: Path) -> dict[str, Any]:
    """A small file that holds an object. Raises ConfigRefused, OSError."""
    data = path.read_bytes() if path.stat().st_size <= JSON_BYTES_MAX else b""
    if not data:
        raise ConfigRefused(f"{path.name} is empty or too large")
    if depth_of(data) > _DEPTH_MAX:
        raise ConfigRefused(f"{path.name} is nested too deeply")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigRefused(f"{path.name} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ConfigRefused(f"{path.name} holds no object")
    return found


def read_config(path: Path) -> EncoderConfig:
    """``config.json``. Raises ConfigRefused, OSError."""
    raw = read_json(path)
    named = raw.get("architectures")
    name = named[0] if isinstance(named, list) and len(named) == 1 else None
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        raise ConfigRefused(
            f"the architecture {_told(name)} is not among those that torch serves here:"
            f" {', '.join(_ARCHITECTURES)}"
        )
    family, head = _ARCHITECTURES[name]
    if raw.get("model_type", family) != family:
        raise ConfigRefused(f"model_type {_told(raw['model_type'])} does not go with {name}")
    _refuse_what_changes_the_model(raw)
    keys = _DISTILBERT_KEYS if family is Family.DISTILBERT else {}

    def number(key: str, most: int, default: int | None = None, least: int = 1) -> int:
        key = keys.get(key, key)
        value = raw.get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise ConfigRefused(f"{key} is {_told(value)}, not a number from {least} to {most}")
        return value

    width, heads = number("hidden_size", 16_384), number("num_attention_heads", 256)
    if width % heads:
        raise ConfigRefused(f"a width of {width} cannot be divided among {heads} heads")
    positions = number("max_position_embeddings", 131_072)
    first = _position_first(family, raw)
    if positions - first < 8:
        raise ConfigRefused(f"{positions} positions leave no room for a text")
    return EncoderConfig(
        family=family,
        head=head,
        width=width,
        layers=number("num_hidden_layers", 256),
        heads=heads,
        inner=number("intermediate_size", 65_536),
        positions=positions,
        position_first=first,
        types=0 if _has_no_types(family) else number("type_vocab_size", 64),
        vocab=number("vocab_size", 4_000_000),
        epsilon=_epsilon(family, raw),
        activation=_activation(raw.get(keys.get("hidden_act", "hidden_act"), "gelu")),
        labels=0 if head is Head.NONE else _labels(raw),
        buckets=number("relative_attention_num_buckets", 4096, 32, 4)
        if family is Family.MPNET
        else 0,
    )


def _has_no_types(family: Family) -> bool:
    return family in {Family.DISTILBERT, Family.MPNET}


def _position_first(family: Family, raw: dict[str, Any]) -> int:
    """RoBERTa's children count places from behind that of padding (fairseq's way)."""
    if family in {Family.BERT, Family.DISTILBERT}:
        return 0
    padding = raw.get("pad_token_id", 1)
    if type(padding) is not int or not 0 <= padding <= 1024:
        raise ConfigRefused(f"pad_token_id is {_told(padding)}")
    return padding + 1


def _refuse_what_changes_the_model(raw: dict[str, Any]) -> None:
    """Settings that mean another computation than the one known by the architecture's name."""
    if raw.get("auto_map"):
        raise ConfigRefused("it needs Python code that came with it (auto_map), which is never run")
    if raw.get("quantization_config") is not None:
        raise ConfigRefused("its weights are quantised in a way that is not served here")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        kind = _told(raw["position_embedding_type"])
        raise ConfigRefused(f"it places its tokens by {kind}, which is not served here")
    for key in ("is_decoder", "add_cross_attention"):
        if raw.get(key, False) is not False:
            raise ConfigRefused(f"{key} is set, and only encoders are served by torch")


def _epsilon(family: Family, raw: dict[str, Any]) -> float:
    if family is Family.DISTILBERT:
        return 1e-12  # not configurable there
    value = raw.get("layer_norm_eps", 1e-12)
    if type(value) not in {int, float} or not 0 < value < 1:
        raise ConfigRefused(f"layer_norm_eps is {_told(value)}")
    return float(value)


def _activation(value: object) -> str:
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        raise ConfigRefused(f"the activation {_told(value)} is none of: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[value]


def _labels(raw: dict[str, Any]) -> int:
    """Outputs of the head: as the names of classes say; two where nothing is said."""
    names = raw.get("id2label")
    count = len(names) if isinstance(names, dict) else raw.get("num_labels", 2)
    if type(count) is not int or not 1 <= count <= _LABELS_MAX:
        raise ConfigRefused(f"its head has {_told(count)} outputs")
    return count


def _told(value: object) -> str:
    return repr(value)[:80]
