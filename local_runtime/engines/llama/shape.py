"""A model's shape as its header tells it: what each layer weighs, and what it keeps per token.

The rules are llama.cpp's own (``llama-hparams.cpp``, ``llama-kv-cache.cpp``, ``llama-memory-*.cpp``
and ``models/*.cpp`` of the version that is bound to). Where a header does not say enough, the
larger of the possibilities is taken.
"""

import re
from collections.abc import Sequence

import msgspec

from local_runtime.engines.llama.cache_types import CacheType
from local_runtime.store.gguf import GgufHeader

# Encoders and diffusion models read the whole text at once and keep nothing.
_WITHOUT_CACHE = frozenset(
    {
        "bert", "jina-bert-v2", "jina-bert-v3", "nomic-bert", "nomic-bert-moe", "neo-bert",
        "eurobert", "wavtokenizer-dec", "modern-bert", "gemma-embedding", "dream", "llada",
        "llada-moe", "rnd1",
    }
)  # fmt: skip
_ALL_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_BOTH_IN_EACH_LAYER = frozenset({"falcon-h1"})
_FULL_ATTENTION_EVERY = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp", "minimax-01"})
_FULL_ATTENTION_INTERVAL = 4
_LAYERS_MAX = 4096
_BLOCK = re.compile(r"blk\.(\d{1,4})\.")


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer. The widths are numbers kept per token; ``state_bytes`` is kept per sequence."""

    weight_bytes: int = 0
    key_width: int = 0
    value_width: int = 0
    state_bytes: int = 0


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """All layers, and what stands before and behind them.

    ``output_bytes`` is what goes to a device together with the last layer; a tied embedding is
    needed there once more (``tied_bytes``).
    """

    layers: tuple[Layer, ...]
    input_bytes: int
    output_bytes: int
    tied_bytes: int
    embedding_length: int
    feed_forward_length: int
    head_count: int
    key_length: int
    value_length: int
    vocab_size: int
    windowed: bool = False  # some layers look only at the last tokens, through a mask of their own

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors, each once."""
        return self.input_bytes + self.output_bytes + sum(x.weight_bytes for x in self.layers)

    @property
    def attending_heads(self) -> int:
        """Heads of all layers that keep cells."""
        return self.head_count * sum(layer.key_width > 0 for layer in self.layers)

    @property
    def divisible(self) -> bool:
        """Whether what a sequence has is one plain list of cells, which any cache can take back."""
        return not self.windowed and not any(layer.state_bytes for layer in self.layers)

    @property
    def everything(self) -> int:
        """What ``gpu_layers`` is when nothing but the input embedding stays on the host."""
        return len(self.layers) + 1

    def on_device(self, gpu_layers: int) -> tuple[Layer, ...]:
        """The layers that go to devices: the output counts as one, then the last ones first."""
        return self.layers[max(0, self.everything - gpu_layers) :] if gpu_layers > 1 else ()

    def device_weight_bytes(self, gpu_layers: int) -> int:
        """Weights on devices; the rest stays on the host."""
        if gpu_layers <= 0:
            return 0
        moved = sum(layer.weight_bytes for layer in self.on_device(gpu_layers))
        return moved + self.output_bytes + self.tied_bytes

    def host_weight_bytes(self, gpu_layers: int) -> int:
        """Weights on the host."""
        moved = sum(layer.weight_bytes for layer in self.on_device(gpu_layers))
        return self.weight_bytes - moved - (self.output_bytes if gpu_layers > 0 else 0)

    def attention_bytes(self, *, flash: bool) -> int:
        """What looking at one cell takes in these buffers, for each token of a batch."""
        masks = 2 if self.windowed else 1
        return 2 * masks if flash else 4 * (self.head_count + masks)

    def compute_bytes(self, *, cells: int, batch_tokens: int, flash: bool) -> int:
        """Buffers of a step with a full batch of which every token gives logits: an upper bound.

        Per token: the attention mask (16 bits a cell; without flash attention 32, and as much for
        each head's scores), three vectors of the feed-forward's length and four of the model's; or
        at the end the logits and two more. Measured on llama.cpp's own count to within 5 %.
        """
        layer = cells * self.attention_bytes(flash=flash) + 4 * (
            3 * self.feed_forward_length + 4 * self.embedding_length
        )
        logits = 4 * (self.vocab_size + 2 * self.embedding_length)
        return batch_tokens * max(layer, logits) * 21 // 20 + (1 << 20)

    def compute_growth_bytes(self, *, batch_tokens: int, flash: bool) -> int:
        """By what these buffers grow with each cell, at most: up, as there are thousands of it."""
        return -(-batch_tokens * self.attention_bytes(flash=flash) * 21 // 20)


def cell_bytes(layers: Sequence[Layer], key: CacheType, value: CacheType, *, flash: bool) -> int:
    """Bytes that one token takes in the cache, over these layers.

    Without flash attention values are stored across, all as wide as the widest layer's.
    """
    widest = 0 if flash else max((layer.value_width for layer in layers), default=0)
    return sum(
        key.bytes_of(layer.key_width) + value.bytes_of(max(layer.value_width, widest))
        for layer in layers
        if layer.key_width
    )


def shape_of(header: GgufHeader) -> ModelShape:
    """Never raises: a header that is silent gives the defaults of llama.cpp, or zero."""
    reader = _Reader(header)
    layer_count = min(reader.number("block_count", 0), _LAYERS_MAX)
    weights = [0] * layer_count
    input_bytes = output_bytes = 0
    tied = True
    for tensor in header.tensors:
        found = _BLOCK.match(tensor.name)
        if found and int(found[1]) < layer_count:
            weights[int(found[1])] += tensor.size_bytes
        elif tensor.name.startswith("output"):
            output_bytes += tensor.size_bytes
            tied = tied and tensor.name != "output.weight"
        else:
            input_bytes += tensor.size_bytes
    embedding = next((t for t in header.tensors if t.name == "token_embd.weight"), None)
    rows = embedding.shape[1] if embedding is not None and len(embedding.shape) > 1 else 0
    return ModelShape(
        layers=tuple(
            msgspec.structs.replace(layer, weight_bytes=weight)
            for layer, weight in zip(reader.layers(layer_count), weights, strict=True)
        ),
        input_bytes=input_bytes,
        output_bytes=output_bytes,
        tied_bytes=embedding.size_bytes if embedding is not None and tied else 0,
        embedding_length=reader.number("embedding_length", 4096),
        feed_forward_length=max(
            *reader.each("feed_forward_length", layer_count, 0),
            reader.number("expert_feed_forward_length", 0) * reader.number("expert_used_count", 1),
            0,
        ),
        head_count=reader.heads(layer_count),
        key_length=reader.key_length(layer_count),
        value_length=reader.value_length(layer_count),
        vocab_size=reader.number("vocab_size", rows),
        windowed=reader.number("attention.sliding_window", 0) > 0,
    )


class _Reader:
    """Numbers of one architecture's keys."""

    def __init__(self, header: GgufHeader) -> None:
        self._header = header

    def number(self, name: str, default: int) -> int:
        value = self._header.metadata.get(f"{self._header.architecture}.{name}")
        return value if isinstance(value, int) and value > 0 else default

    def each(self, name: str, count: int, default: int) -> list[int]:
        """A number per layer: the header has one for all, or an array."""
        found = self._header.arrays.get(f"{self._header.architecture}.{name}")
        if found is None:
            return [self.number(name, default)] * count
        numbers = [value if isinstance(value, int) and value > 0 else 0 for value in found[:count]]
        return numbers + [default] * (count - len(numbers))

    def heads(self, count: int) -> int:
        return max([*self.each("attention.head_count", count, 32), 1])

    def key_length(self, count: int) -> int:
        """Numbers of one head's keys."""
        width = self.number("embedding_length", 4096) // self.heads(count)
        return self.number("attention.key_length", width)

    def value_length(self, count: int) -> int:
        """The same of its values."""
        if self.number("attention.key_length_mla", 0):
            return 0  # multi-head latent attention computes values from what it keeps as keys
        width = self.number("embedding_length", 4096) // self.heads(count)
        return self.number("attention.value_length", width)

    def layers(self, count: int) -> Sequence[Layer]:
        """What each layer keeps; weights are not filled in."""
        architecture = self._header.architecture
        if architecture in _WITHOUT_CACHE:
            return [Layer()] * count
        heads = self.each("attention.head_count", count, 32)
        kv_heads = self.each("attention.head_count_kv", count, 0)
        has_kv_heads = any(kv_heads)
        key, value = self.key_length(count), self.value_length(count)
        with_cache = self._with_cache(count)
        state = self._state_bytes(self.heads(count))
        recurrent = self._recurrent(count, kv_heads if has_kv_heads else None, bool(state))
        layers = []
        for at in range(count):
            attends = at < with_cache and (not recurrent[at] or architecture in _BOTH_IN_EACH_LAYER)
            kept_heads = (kv_heads[at] if has_kv_heads else heads[at]) if attends else 0
            layers.append(
                Layer(
                    key_width=key * kept_heads,
                    value_width=value * kept_heads,
                    state_bytes=state if recurrent[at] else 0,
                )
            )
        return layers

    def _with_cache(self, count: int) -> int:
        """The first so many layers have a cache of their own; later ones share, or only predict."""
        if self._header.architecture == "gemma3n":
            return min(count, 20)
        shared = self.number("attention.shared_kv_layers", 0)
        return max(0, count - max(shared, self.number("nextn_predict_layers", 0)))

    def _recurrent(self, count: int, kv_heads: list[int] | None, has_state: bool) -> list[bool]:
        architecture = self._header.architecture
        if not has_state:
            return [False] * count
        if architecture in _ALL_RECURRENT | _BOTH_IN_EACH_LAYER:
            return [True] * count
        if architecture in _FULL_ATTENTION_EVERY:
            listed = self._header.arrays.get(f"{architecture}.attention.recurrent_layers")
            if listed is not None and len(listed) >= count:
                return [bool(value) for value in listed[:count]]
            every = self.number("full_attention_interval", _FULL_ATTENTION_INTERVAL)
            return [(at + 1) % every != 0 for at in range(count)]
        return [kv_heads is not None and not heads for heads in kv_heads or [1] * count]

    def _state_bytes(self, heads: int) -> int:
        """Bytes of 32-bit numbers that a recurrent layer keeps for one sequence."""
        embedding = self.number("embedding_length", 4096)
        conv = self.number("ssm.conv_kernel", 0)
        if wkv := self.number("wkv.head_size", 0):
            return 4 * (self.number("token_shift_count", 2) * embedding + embedding * wkv)
        if shortconv := self.number("shortconv.l_cache", 0):
            return 4 * embedding * (shortconv - 1)
        if kda := self.number("kda.head_dim", 0):
            return 4 * (3 * (conv - 1 if conv else 3) * heads * kda + kda * kda * heads)
        inner, state = self.number("ssm.inner_size", 0), self.number("ssm.state_size", 0)
        groups = self.number("ssm.group_count", 0)
        return 4 * ((max(conv, 1) - 1) * (inner + 2 * groups * state) + state * inner)
