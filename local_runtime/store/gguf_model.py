"""A GGUF model as a whole: all the parts of a split one, and numbers that llama.cpp relies on.

llama.cpp ends its process (GGML_ASSERT, GGML_ABORT) over some values that its loader does not
check; each rule here stands for such a place in it (``src/llama-model.cpp``, ``load_hparams``;
``src/llama-vocab.cpp``; ``ggml/src/ggml-cpu/ops.cpp``), or for a division or an allocation by it.
"""

import math
import re
from pathlib import Path

import msgspec

from local_runtime.store.gguf import GgufError, GgufHeader, Tensor, read_file

LAYERS_MAX = 512  # llama-hparams.h, LLAMA_MAX_LAYERS
EXPERTS_MAX = 1024  # llama-hparams.h, LLAMA_MAX_EXPERTS
PARTS_MAX = 1000
WIDTH_MAX = 2**24
INTEGER_MAX = 2**31 - 1
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_ROPE_SCALING = frozenset({"none", "linear", "yarn", "longrope"})
_WIDTHS = ("embedding_length", "feed_forward_length", "attention.key_length", "vocab_size")
_MORE_WIDTHS = ("attention.value_length", "rope.dimension_count", "attention.head_count")
# ggml's types for integers and float64, which no operation on weights takes.
_NO_WEIGHTS = frozenset({24, 25, 26, 27, 28})
_F32, _F16 = 0, 1


def part_path(path: Path, number: int, count: int) -> Path:
    """Part ``number`` (from 0) of a split model, beside its first part. Raises GgufError."""
    found = _PART.fullmatch(path.name)
    if found is None or int(found[2]) != 1 or int(found[3]) != count:
        raise GgufError(
            f"{path.name}: the first of {count} parts must be named NAME-00001-of-{count:05}.gguf,"
            " and the others like it beside it"
        )
    return path.with_name(f"{found[1]}-{number + 1:05}-of-{count:05}.gguf")


def checked(path: Path, header: GgufHeader) -> GgufHeader:
    """The model whose first or only file has this header. Raises GgufError, OSError."""
    count = header.metadata.get("split.count", 1)
    if not isinstance(count, int) or not 0 <= count <= PARTS_MAX:
        raise GgufError(f"{path.name}: split.count is {count!r}")
    if count > 1:
        header = _joined(path, header, count)
    _check_numbers(path.name, header)
    _check_tensors(path.name, header)
    return header


def _joined(path: Path, first: GgufHeader, count: int) -> GgufHeader:
    """One header of all parts: the first one's metadata, everybody's tensors."""
    if first.metadata.get("split.no") != 0:
        raise GgufError(f"{path.name}: it is one of {count} parts, but not the first; name that")
    tensors: list[Tensor] = list(first.tensors)
    file_bytes = first.file_bytes
    for number in range(1, count):
        part = part_path(path, number, count)
        if not part.is_file():
            raise GgufError(f"{path.name}: its part {part.name} is missing")
        header = read_file(part)
        found = header.metadata.get("split.no"), header.metadata.get("split.count")
        if found != (number, count):
            raise GgufError(f"{part.name}: it is part {found[0]} of {found[1]}, by its own words")
        tensors += header.tensors
        file_bytes += header.file_bytes
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise GgufError(f"{path.name}: its parts hold the same tensor twice")
    told = first.metadata.get("split.tensors.count", len(tensors))
    if told != len(tensors):
        raise GgufError(f"{path.name}: its parts hold {len(tensors)} tensors, not {told}")
    return msgspec.structs.replace(
        first,
        tensors=tuple(tensors),
        tensor_count=len(tensors),
        file_bytes=file_bytes,
        file_count=count,
    )


class _Numbers:
    """The hyper-parameters, each as the list of its values, one for each layer or one for all."""

    def __init__(self, name: str, header: GgufHeader) -> None:
        self._name = name
        self._header = header

    def of(self, key: str) -> list[int]:
        """Empty where there is none."""
        full = f"{self._header.architecture}.{key}"
        value = self._header.metadata.get(full)
        values = self._header.arrays.get(full, ()) if value is None else (value,)
        return [each for each in values if isinstance(each, int) and not isinstance(each, bool)]

    def within(self, key: str, low: int, high: int) -> None:
        for value in self.of(key):
            if not low <= value <= high:
                self.refuse(key, value, f"must be {low} to {high}")

    def refuse(self, key: str, value: object, rule: str) -> None:
        raise GgufError(f"{self._name}: {self._header.architecture}.{key} is {value}: it {rule}")


def _check_numbers(name: str, header: GgufHeader) -> None:
    numbers = _Numbers(name, header)
    own = f"{header.architecture}."
    for key, value in header.metadata.items():
        if not key.startswith(own):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            numbers.refuse(key.removeprefix(own), value, "must be finite")
        if isinstance(value, int) and not -INTEGER_MAX <= value <= INTEGER_MAX:
            numbers.refuse(key.removeprefix(own), value, "is too large")
        if key.endswith("_epsilon") and isinstance(value, float) and not 0 <= value <= 1:
            numbers.refuse(key.removeprefix(own), value, "must be 0 to 1")
    for key in (*_WIDTHS, *_MORE_WIDTHS):
        numbers.within(key, 0, WIDTH_MAX)
    numbers.within("embedding_length", 1, WIDTH_MAX)
    numbers.within("context_length", 1, INTEGER_MAX)
    numbers.within("block_count", 1, LAYERS_MAX)
    numbers.within("pooling_type", 0, 4)
    _check_heads(numbers)
    _check_experts(numbers)
    scaling = header.metadata.get(f"{own}rope.scaling.type", "linear")
    if scaling not in _ROPE_SCALING:
        numbers.refuse("rope.scaling.type", scaling, "is none of " + ", ".join(_ROPE_SCALING))
    base = header.metadata.get(f"{own}rope.freq_base", 10_000.0)
    if isinstance(base, float) and base <= 0:
        numbers.refuse("rope.freq_base", base, "must be more than 0")
    if header.metadata.get("tokenizer.ggml.model") == "llama" and header.byte_tokens != 256:
        raise GgufError(f"{name}: its vocabulary spells only {header.byte_tokens} of 256 bytes")


def _check_heads(numbers: _Numbers) -> None:
    """Heads divide the width of a layer, and groups of them share keys and values."""
    layers = numbers.of("block_count")
    heads, shared = numbers.of("attention.head_count"), numbers.of("attention.head_count_kv")
    for key, values in (("attention.head_count", heads), ("attention.head_count_kv", shared)):
        if layers and len(values) > 1 and len(values) < layers[0]:
            numbers.refuse(key, f"{len(values)} values", f"must be {layers[0]}, one for each layer")
    width = numbers.of("embedding_length")
    for head_count in heads:
        if width and head_count > width[0]:
            numbers.refuse("attention.head_count", head_count, f"is more than the {width[0]} wide")
    longest = max(len(heads), len(shared))
    pairs = zip(_stretched(heads, longest), _stretched(shared, longest), strict=True)
    for head_count, shared_by in pairs if heads and shared else ():
        if shared_by < 0 or (shared_by > 0 and head_count % shared_by):
            numbers.refuse("attention.head_count_kv", shared_by, f"does not divide {head_count}")


def _stretched(values: list[int], count: int) -> list[int]:
    """One value for all layers, as one for each."""
    return values * count if len(values) == 1 else values + values[-1:] * (count - len(values))


def _check_experts(numbers: _Numbers) -> None:
    numbers.within("expert_count", 0, EXPERTS_MAX)
    experts = (numbers.of("expert_count") or [0])[0]
    used = numbers.of("expert_used_count")
    numbers.within("expert_used_count", 0, experts)
    if experts and max(used, default=0) < 1:
        numbers.refuse("expert_used_count", used, f"must be 1 to {experts}")
    groups = (numbers.of("expert_group_count") or [0])[0]
    if groups and (groups >= experts or experts % groups):
        numbers.refuse("expert_group_count", groups, f"does not divide {experts} experts")
    if groups > 1:
        numbers.within("expert_group_used_count", 1, groups - 1)
    layers = numbers.of("block_count")
    if layers:
        numbers.within("nextn_predict_layers", 0, layers[0])


def _check_tensors(name: str, header: GgufHeader) -> None:
    """Weights are of types that are computed with; vectors are added and multiplied as floats."""
    for tensor in header.tensors:
        if not tensor.name.endswith((".weight", ".bias")):
            continue
        flat = len(tensor.shape) == 1
        if tensor.type_id in _NO_WEIGHTS or (flat and tensor.type_id not in {_F32, _F16}):
            raise GgufError(
                f"{name}: the tensor {tensor.name!r} has the type {tensor.type_id}, which is not"
                " one of weights"
            )
