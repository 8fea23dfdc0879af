"""How much memory a model will take, told from its header before anything is loaded.

Weights are exact. The cache is exact. Compute buffers are an upper bound (``shape.compute_bytes``),
taken by and by as batches grow. So a process never takes more than what is said here by more than
MARGIN_BYTES, and as soon as it is loaded, less than weights and cache by no more than MARGIN_SHARE
and MARGIN_BYTES; tests load a real model and compare.
"""

from collections.abc import Sequence

import msgspec

from local_runtime.engines.contract import EngineSpec
from local_runtime.engines.llama.cache_types import CACHE_TYPES
from local_runtime.engines.llama.shape import Layer, ModelShape, cell_bytes, shape_of
from local_runtime.engines.llama.sizing import FLASH_OFF, KEPT_BYTES, UNKNOWN, Free, Size, size_of
from local_runtime.store.gguf import GgufHeader

MARGIN_SHARE = 0.15
MARGIN_BYTES = 64 * 1024 * 1024
PROCESS_BYTES = 48 * 1024 * 1024  # a child beside its model: Python, the library, the vocabulary

_BY_NUMBER = {kind.number: kind for kind in CACHE_TYPES.values()}


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the host and on devices, by what they are for. ``file_bytes`` of the host's weights
    are mapped from the file: the system can drop and read them again when memory is short.
    """

    host_bytes: int
    device_bytes: int
    weight_bytes: int
    cache_bytes: int
    compute_bytes: int
    file_bytes: int
    context_length: int
    cells: int
    gpu_layers: int


def footprint(
    header: GgufHeader, spec: EngineSpec, *, gpu_layers: int = 0, free: Free = UNKNOWN
) -> Footprint:
    """What ``spec`` takes with so many layers on devices. Raises EngineLoadError as ``size_of``.

    Without ``free`` it is the most that the engine would take: with little memory it takes less.
    """
    asked = spec.gpu_layers if spec.gpu_layers is not None else gpu_layers
    size = size_of(header, msgspec.structs.replace(spec, gpu_layers=asked), free)
    return footprint_of(shape_of(header), size, sequences=spec.sequences_max)


def footprint_of(shape: ModelShape, size: Size, *, sequences: int) -> Footprint:
    """The same for a size that was chosen."""
    moved = shape.on_device(size.gpu_layers)
    stays = shape.layers[: len(shape.layers) - len(moved)]
    compute = shape.compute_bytes(
        cells=size.cells,
        batch_tokens=size.batch_tokens,
        flash=size.flash_attn_type != FLASH_OFF,
    )
    host_weights = shape.host_weight_bytes(size.gpu_layers)
    outputs = 4 * shape.vocab_size * sequences
    host_cache = _cache_bytes(stays, size, sequences)
    device_cache = _cache_bytes(moved, size, sequences)
    device_weights = shape.device_weight_bytes(size.gpu_layers)
    return Footprint(
        host_bytes=host_weights + host_cache + compute + outputs + KEPT_BYTES + PROCESS_BYTES,
        device_bytes=device_weights + device_cache + compute if size.gpu_layers else 0,
        weight_bytes=shape.weight_bytes,
        cache_bytes=host_cache + device_cache,
        compute_bytes=compute,
        file_bytes=host_weights,
        context_length=size.context_length,
        cells=size.cells,
        gpu_layers=size.gpu_layers,
    )


def _cache_bytes(layers: Sequence[Layer], size: Size, sequences: int) -> int:
    """The cells of these layers, and their states, one for each sequence."""
    key, value = _BY_NUMBER[size.type_k], _BY_NUMBER[size.type_v]
    cell = cell_bytes(layers, key, value, flash=size.flash_attn_type != FLASH_OFF)
    states = sum(layer.state_bytes for layer in layers) * sequences
    return cell * size.cells + states
