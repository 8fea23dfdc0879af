"""How large the context is, and how many threads may compute, where the configuration is silent."""

import os

import msgspec

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.engines.llama.threads import candidates
from local_runtime.store.gguf import GgufHeader

CONTEXT_DEFAULT_MAX = 8192
CACHE_BYTES_DEFAULT = 256 * 1024 * 1024
_CELL_ALIGNMENT = 256
_BYTES_PER_VALUE = 2  # keys and values are kept as f16


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """``cells`` is what the cache holds for all sequences together."""

    context_length: int
    cells: int
    threads: list[int]  # the counts to choose from, while it runs


def size_of(header: GgufHeader, spec: EngineSpec) -> Size:
    """Raises EngineLoadError when the configured context is longer than the model's."""
    trained = header.context_length
    context_length = spec.context_length or min(trained or CONTEXT_DEFAULT_MAX, CONTEXT_DEFAULT_MAX)
    if trained is not None and context_length > trained:
        raise EngineLoadError(
            f"context_length = {context_length}, but the model was trained for {trained} tokens"
        )
    affordable = CACHE_BYTES_DEFAULT // cell_bytes(header)
    cells = max(context_length, min(affordable, context_length * spec.sequences_max))
    return Size(
        context_length=context_length,
        cells=-(-cells // _CELL_ALIGNMENT) * _CELL_ALIGNMENT,
        threads=[spec.threads] if spec.threads else candidates(usable_cores()),
    )


def cell_bytes(header: GgufHeader) -> int:
    """Bytes of the cache that one token takes, over all layers."""

    def number(name: str, default: int) -> int:
        value = header.metadata.get(f"{header.architecture}.{name}")
        return value if isinstance(value, int) and value > 0 else default

    heads = number("attention.head_count", 32)
    width = number("embedding_length", 4096) // heads
    per_layer = number("attention.key_length", width) + number("attention.value_length", width)
    kv_heads = number("attention.head_count_kv", heads)
    return number("block_count", 32) * kv_heads * per_layer * _BYTES_PER_VALUE


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
