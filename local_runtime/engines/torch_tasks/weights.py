"""Weights from safetensors: mapped from the file, found by the names that each family has for them,
and of the very shapes that the configuration says.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import safetensors
import torch

from local_runtime.engines.contract import EngineLoadError
from local_runtime.engines.torch_tasks.config import EncoderConfig, Family, Head

Tensor = Any  # torch's own types are there only where torch is
_PREFIXES = ("", "bert.", "roberta.", "distilbert.", "mpnet.")
_WORDS = "embeddings.word_embeddings.weight"
_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
_OLD_NAMES = {"weight": "gamma", "bias": "beta"}  # of norms, in files from before 2019

_BERT = {
    "layer": "encoder.layer.{}.",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "norm_1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm_2": "output.LayerNorm",
}
_NAMES: dict[Family, dict[str, str]] = {
    Family.BERT: _BERT,
    Family.ROBERTA: _BERT,
    Family.XLM_ROBERTA: _BERT,
    Family.MPNET: _BERT
    | {
        "q": "attention.attn.q",
        "k": "attention.attn.k",
        "v": "attention.attn.v",
        "o": "attention.attn.o",
        "norm_1": "attention.LayerNorm",
    },
    Family.DISTILBERT: {
        "layer": "transformer.layer.{}.",
        "q": "attention.q_lin",
        "k": "attention.k_lin",
        "v": "attention.v_lin",
        "o": "attention.out_lin",
        "norm_1": "sa_layer_norm",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
        "norm_2": "output_layer_norm",
    },
}
# Our names for the parts of heads, theirs, and whether those stand within the model's prefix.
_HEADS: dict[Head, list[tuple[str, str, bool]]] = {
    Head.NONE: [],
    Head.POOLED: [("head_1", "pooler.dense", True), ("head_2", "classifier", False)],
    Head.ROBERTA: [
        ("head_1", "classifier.dense", False),
        ("head_2", "classifier.out_proj", False),
    ],
    Head.DISTILBERT: [("head_1", "pre_classifier", False), ("head_2", "classifier", False)],
}


def wanted(config: EncoderConfig) -> Iterator[tuple[str, str, tuple[int, ...], bool]]:
    """Each tensor: our name, the family's, its shape, and whether it stands within the prefix."""
    width, inner, names = config.width, config.inner, _NAMES[config.family]
    at = "embeddings."
    yield "words.weight", _WORDS, (config.vocab, width), True
    yield "places.weight", f"{at}position_embeddings.weight", (config.positions, width), True
    if config.types:
        yield "types.weight", f"{at}token_type_embeddings.weight", (config.types, width), True
    if config.family is Family.MPNET:
        shape = (config.buckets, config.heads)
        yield "near.weight", "encoder.relative_attention_bias.weight", shape, True
    linear = dict.fromkeys("qkvo", (width, width))
    linear |= {"up": (inner, width), "down": (width, inner)}
    norms = [("norm", f"{at}LayerNorm")]
    for layer in range(config.layers):
        place = names["layer"].format(layer)
        for part, shape in linear.items():
            yield f"{layer}.{part}.weight", f"{place}{names[part]}.weight", shape, True
            yield f"{layer}.{part}.bias", f"{place}{names[part]}.bias", shape[:1], True
        norms += [(f"{layer}.{part}", f"{place}{names[part]}") for part in ("norm_1", "norm_2")]
    for ours, theirs in norms:
        yield f"{ours}.weight", f"{theirs}.weight", (width,), True
        yield f"{ours}.bias", f"{theirs}.bias", (width,), True
    sizes = {"head_1": width, "head_2": config.labels}
    for ours, theirs, within in _HEADS[config.head]:
        yield f"{ours}.weight", f"{theirs}.weight", (sizes[ours], width), within
        yield f"{ours}.bias", f"{theirs}.bias", (sizes[ours],), within


def load_weights(
    files: list[Path], config: EncoderConfig, progress: Callable[[float], None]
) -> dict[str, Tensor]:
    """All tensors by our names, as 32-bit floats on the host. Raises EngineLoadError.

    What the file has so already stays mapped from it.
    """
    with ExitStack() as stack:
        where: dict[str, Any] = {}
        try:
            for path in files:
                opened = stack.enter_context(safetensors.safe_open(str(path), framework="pt"))
                where |= dict.fromkeys(opened.keys(), opened)
        except (safetensors.SafetensorError, OSError) as error:
            raise EngineLoadError(f"its weights cannot be read: {str(error)[:200]}") from error
        prefix = next((each for each in _PREFIXES if each + _WORDS in where), None)
        if prefix is None:
            raise EngineLoadError(f"its weights lack {_WORDS}")
        due = list(wanted(config))
        found = {}
        for count, (ours, theirs, shape, within) in enumerate(due):
            name = prefix + theirs if within else theirs
            found[ours] = _one(where, name, shape)
            progress(count / len(due))
    return found


def _one(where: dict[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    if name not in where:
        stem, _, last = name.rpartition(".")
        old = f"{stem}.{_OLD_NAMES[last]}"
        if old not in where:
            raise EngineLoadError(f"its weights lack {name}")
        name = old
    try:
        part = where[name].get_slice(name)
        if tuple(part.get_shape()) != shape or part.get_dtype() not in _DTYPES:
            raise EngineLoadError(
                f"{name} is {part.get_dtype()} of shape {list(part.get_shape())}; config.json wants"
                f" floating-point numbers of shape {list(shape)}"
            )
        return where[name].get_tensor(name).to(torch.float32)
    except (safetensors.SafetensorError, RuntimeError, ValueError) as error:
        raise EngineLoadError(f"{name} cannot be read: {str(error)[:200]}") from error
