"""Small models with random weights as folders of the Hub, and what they say, computed in numpy.

Written from the papers and from the names of the weights; it shares nothing with what is tested.
"""

import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.local_runtime import bert

Array = NDArray[np.float64]
WIDTH, LAYERS, HEADS, INNER, POSITIONS, BUCKETS = 32, 2, 4, 48, 40, 8
CLASSES = {
    "bert": ("BertModel", "BertForSequenceClassification"),
    "roberta": ("RobertaModel", "RobertaForSequenceClassification"),
    "xlm-roberta": ("XLMRobertaModel", "XLMRobertaForSequenceClassification"),
    "distilbert": ("DistilBertModel", "DistilBertForSequenceClassification"),
    "mpnet": ("MPNetModel", ""),
}
_PREFIXES = {"bert": "bert.", "roberta": "roberta.", "xlm-roberta": "roberta."}
_PARTS = {
    "bert": (
        "encoder.layer.{}.",
        *("attention.self.query", "attention.self.key", "attention.self.value"),
        *("attention.output.dense", "attention.output.LayerNorm"),
        *("intermediate.dense", "output.dense", "output.LayerNorm"),
    ),
    "mpnet": (
        "encoder.layer.{}.",
        *("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        *("attention.attn.o", "attention.LayerNorm"),
        *("intermediate.dense", "output.dense", "output.LayerNorm"),
    ),
    "distilbert": (
        "transformer.layer.{}.",
        *("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        *("attention.out_lin", "sa_layer_norm"),
        *("ffn.lin1", "ffn.lin2", "output_layer_norm"),
    ),
}
VOCAB = bert.small().vocab


@dataclass
class HubModel:
    """``pooling``: as sentence-transformers calls it. With ``head`` it scores pairs."""

    family: str = "bert"
    head: bool = False
    pooling: str = "mean_tokens"
    seed: int = 1
    weights: dict[str, NDArray[np.float32]] = field(init=False)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.weights = {
            name: (random.normal(0, 0.3, shape) + (1 if "orm.weight" in name else 0)).astype("f4")
            for name, shape in self._shapes().items()
        }

    @property
    def first(self) -> int:
        """RoBERTa's children begin to count behind the place of padding."""
        return 2 if self.family in {"roberta", "xlm-roberta", "mpnet"} else 0

    @property
    def prefix(self) -> str:
        inside = "distilbert." if self.family == "distilbert" else _PREFIXES.get(self.family, "")
        return inside if self.head else ""

    @property
    def has_types(self) -> bool:
        return self.family in {"bert", "roberta", "xlm-roberta"}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        at = f"{self.prefix}embeddings."
        shapes: dict[str, tuple[int, ...]] = {
            f"{at}word_embeddings.weight": (len(VOCAB), WIDTH),
            f"{at}position_embeddings.weight": (POSITIONS, WIDTH),
        }
        if self.has_types:
            shapes[f"{at}token_type_embeddings.weight"] = (self._types, WIDTH)
        if self.family == "mpnet":
            shapes["encoder.relative_attention_bias.weight"] = (BUCKETS, HEADS)
        norms = [f"{at}LayerNorm"]
        linear: dict[str, tuple[int, int]] = {}
        for layer in range(LAYERS):
            q, k, v, o, norm_1, up, down, norm_2 = self.parts(layer)
            linear |= dict.fromkeys((q, k, v, o), (WIDTH, WIDTH))
            linear |= {up: (INNER, WIDTH), down: (WIDTH, INNER)}
            norms += [norm_1, norm_2]
        if self.head:
            one, two = self._head_names()
            linear |= {one: (WIDTH, WIDTH), two: (1, WIDTH)}
        for name, shape in linear.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in norms:
            shapes |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
        return shapes

    @property
    def _types(self) -> int:
        return 2 if self.family == "bert" else 1

    def _head_names(self) -> tuple[str, str]:
        if self.family == "bert":
            return "bert.pooler.dense", "classifier"
        if self.family == "distilbert":
            return "pre_classifier", "classifier"
        return "classifier.dense", "classifier.out_proj"

    def parts(self, layer: int) -> list[str]:
        """Names of what a layer consists of, from the query to the last norm."""
        place, *names = _PARTS.get(self.family, _PARTS["bert"])
        return [self.prefix + place.format(layer) + name for name in names]

    def hidden(self, tokens: list[int], types: list[int]) -> Array:
        """The last layer's output, shape (tokens, width)."""
        at = f"{self.prefix}embeddings."
        count = len(tokens)
        x = self._table(f"{at}word_embeddings")[tokens]
        x = x + self._table(f"{at}position_embeddings")[self.first : self.first + count]
        if self.has_types:
            x = x + self._table(f"{at}token_type_embeddings")[types]
        x = self._norm(x, f"{at}LayerNorm")
        for layer in range(LAYERS):
            q, k, v, o, norm_1, up, down, norm_2 = self.parts(layer)
            mixed = self._attention(*(self._linear(x, name) for name in (q, k, v)))
            x = self._norm(x + self._linear(mixed, o), norm_1)
            x = self._norm(x + self._linear(_gelu(self._linear(x, up)), down), norm_2)
        return x

    def _attention(self, asked: Array, keys: Array, values: Array) -> Array:
        count, each = len(asked), WIDTH // HEADS
        mixed = np.empty_like(asked)
        for head in range(HEADS):
            mine = slice(head * each, (head + 1) * each)
            scores = asked[:, mine] @ keys[:, mine].T / math.sqrt(each)
            if self.family == "mpnet":
                bias = self._table("encoder.relative_attention_bias")[:, head]
                for i in range(count):
                    for j in range(count):
                        scores[i, j] += bias[_bucket(j - i)]
            grown = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, mine] = grown / grown.sum(axis=1, keepdims=True) @ values[:, mine]
        return mixed

    def vector(self, tokens: list[int]) -> Array:
        """Pooled, of length 1."""
        hidden = self.hidden(tokens, [0] * len(tokens))
        pooled = {
            "mean_tokens": hidden.mean(axis=0),
            "max_tokens": hidden.max(axis=0),
            "cls_token": hidden[0],
            "lasttoken": hidden[-1],
        }[self.pooling]
        return np.asarray(pooled / np.linalg.norm(pooled))

    def score(self, query: str, document: str) -> float:
        """Between 0 and 1."""
        tokens, types = self.pair(query, document)
        one, two = self._head_names()
        inner = self._linear(self.hidden(tokens, types)[:1], one)
        inner = np.maximum(inner, 0) if self.family == "distilbert" else np.tanh(inner)
        return 1 / (1 + math.exp(-float(self._linear(inner, two)[0, 0])))

    def pair(self, query: str, document: str) -> tuple[list[int], list[int]]:
        """Tokens of both with their marks, and of which kind each is."""
        end = [VOCAB.index("[SEP]")]
        first = bert.small().tokens(query)
        second = [*bert.small().tokens(document)[1:-1], *end]
        if self.family in {"roberta", "xlm-roberta"}:
            second = end + second
        kind = 1 if self.family == "bert" else 0
        return first + second, [0] * len(first) + [kind] * len(second)

    def _table(self, name: str) -> Array:
        return self.weights[f"{name}.weight"].astype("f8")

    def _linear(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self._table(name).T + self.weights[f"{name}.bias"])

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return np.asarray(centred / spread * self._table(name) + self.weights[f"{name}.bias"])

    def config(self) -> dict[str, Any]:
        """``config.json``."""
        shared = {
            "architectures": [CLASSES[self.family][self.head]],
            "model_type": self.family,
            "max_position_embeddings": POSITIONS,
            "vocab_size": len(VOCAB),
        }
        if self.head:
            shared |= {"id2label": {"0": "LABEL_0"}}
        if self.family == "distilbert":
            return shared | {
                **{"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS},
                **{"hidden_dim": INNER, "activation": "gelu"},
            }
        return shared | {
            **{"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
            **{"intermediate_size": INNER, "hidden_act": "gelu", "type_vocab_size": self._types},
            **{"layer_norm_eps": 1e-12, "pad_token_id": 1 if self.first else 0},
            **{"relative_attention_num_buckets": BUCKETS},
        }

    def write(self, folder: Path, dtype: str = "F32") -> Path:
        """As a folder; the path of its weights."""
        (folder / "1_Pooling").mkdir(parents=True)
        write_json(folder / "config.json", self.config())
        write_json(folder / "tokenizer.json", self.tokenizer())
        if not self.head:
            write_json(folder / "modules.json", MODULES)
            mode = {"word_embedding_dimension": WIDTH, f"pooling_mode_{self.pooling}": True}
            write_json(folder / "1_Pooling" / "config.json", mode)
        path = folder / "model.safetensors"
        path.write_bytes(safetensors(self.weights, dtype))
        return path

    def tokenizer(self) -> dict[str, Any]:
        """BERT's words and pieces, whatever the family; pairs are put together as in the family."""
        marks = {name: _special(name) for name in ("[CLS]", "[SEP]")}
        kind = 1 if self.family == "bert" else 0
        doubled = [_mark("[SEP]", 0)] if self.family in {"roberta", "xlm-roberta"} else []
        single = [_mark("[CLS]", 0), _text("A", 0), _mark("[SEP]", 0)]
        return {
            "version": "1.0",
            "truncation": {**_CUT, "max_length": 5},
            "padding": None,
            "added_tokens": [_added(name) for name in bert.SPECIAL],
            "normalizer": {
                **{"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
                **{"strip_accents": None, "lowercase": True},
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": single,
                "pair": [*single, *doubled, _text("B", kind), _mark("[SEP]", kind)],
                "special_tokens": marks,
            },
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
            "model": {
                **{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"},
                "max_input_chars_per_word": 100,
                "vocab": {text: number for number, text in enumerate(VOCAB)},
            },
        }


MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_N", "type": "sentence_transformers.models.Normalize"},
]
_CUT = {"direction": "Right", "strategy": "LongestFirst", "stride": 0}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def safetensors(weights: dict[str, NDArray[np.float32]], dtype: str = "F32") -> bytes:
    """The file's bytes (huggingface/safetensors: a length, a JSON header, the data)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, each in weights.items():
        raw = _as(each, dtype)
        entry = {"dtype": dtype, "shape": list(each.shape)}
        header[name] = entry | {"data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _as(values: NDArray[np.float32], dtype: str) -> bytes:
    if dtype == "BF16":  # the upper half of each number
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))))


def _bucket(ahead: int) -> int:
    """MPNet's bucket for a token so many places ahead (T5's, for both directions)."""
    half, far = BUCKETS // 2, abs(ahead)
    exact = half // 2
    if far >= exact:
        grown = math.log(far / exact) / math.log(128 / exact) * (half - exact)
        far = min(half - 1, exact + int(grown))
    return far + (half if ahead > 0 else 0)


def _special(name: str) -> dict[str, Any]:
    return {"id": name, "ids": [VOCAB.index(name)], "tokens": [name]}


def _added(name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": VOCAB.index(name), "content": name, "special": True, **flags}


def _mark(name: str, kind: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": kind}}


def _text(name: str, kind: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": kind}}
