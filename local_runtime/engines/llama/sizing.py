"""What to make room for where the configuration is silent: context, cache, layers on devices.

Pure: it is told how much memory is free. What is configured is done as it is written, or refused in
words; only what is left open is chosen:

- The context is as long as the model was trained for, at most CONTEXT_DEFAULT_MAX tokens, and
  halved for as long as the cache of one such context is more than the cache may have.
- The cache may have half of the host memory that is left beside the weights, but not much more
  than the weights themselves: idle cells are memory that another model could use.
- As many layers go to devices as fit there with their part of the cache: all of them, if that
  leaves room for a context of CONTEXT_WANTED tokens.
"""

import msgspec

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.engines.llama.cache_types import CACHE_TYPES, CacheType
from local_runtime.engines.llama.shape import ModelShape, cell_bytes, shape_of
from local_runtime.engines.threads import candidates, usable_cores
from local_runtime.store.gguf import GgufHeader

CONTEXT_DEFAULT_MAX = 32_768
CONTEXT_WANTED = 8192
CONTEXT_MIN = 2048
CACHE_BYTES_DEFAULT = 384 * 1024 * 1024
BATCH_TOKENS = 512
# Ordinary memory for what calls that have ended leave for prompts that start alike, and for what
# is in the cache while its layout changes.
KEPT_BYTES = 192 * 1024 * 1024
FLASH_AUTO, FLASH_OFF, FLASH_ON = -1, 0, 1  # llama.h, enum llama_flash_attn_type
_CELL_ALIGNMENT = 256
_CELLS_MAX = 1 << 24


class Free(msgspec.Struct, frozen=True, kw_only=True):
    """Memory that may be taken, in bytes. None: not known, so nothing is refused for it.

    ``device_bytes`` is the sum over all devices, less what is left alone there (0: no device).
    """

    host_bytes: int | None = None
    device_bytes: int = 0


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """``cells`` is what the cache holds for all sequences together, ``cell_bytes`` each.

    ``heads`` of all layers look at each cell; 0 where the cache cannot be divided.
    """

    context_length: int
    cells: int
    threads: list[int]  # the counts to choose from, while it runs
    batch_tokens: int = BATCH_TOKENS
    type_k: int = CACHE_TYPES["f16"].number
    type_v: int = CACHE_TYPES["f16"].number
    flash_attn_type: int = FLASH_AUTO
    gpu_layers: int = 0
    cell_bytes: int = 0
    heads: int = 0
    copied: bool = False  # weights in memory of their own, not mapped from the file


UNKNOWN = Free()


def size_of(header: GgufHeader, spec: EngineSpec, free: Free = UNKNOWN) -> Size:
    """Raises EngineLoadError where the configuration asks for what cannot be."""
    shape = shape_of(header)
    kind, flash_attn_type = cache_type_of(shape, spec)
    if spec.memory_bytes_max is not None:
        known = spec.memory_bytes_max if free.host_bytes is None else free.host_bytes
        free = msgspec.structs.replace(free, host_bytes=min(known, spec.memory_bytes_max))
    planner = _Planner(header, shape, spec, kind, flash=flash_attn_type != FLASH_OFF)
    gpu_layers = planner.gpu_layers(free)
    affordable = planner.affordable(gpu_layers, free)
    context_length = planner.context_length(affordable)
    return Size(
        context_length=context_length,
        cells=planner.cells(context_length, affordable, gpu_layers, free),
        threads=[spec.threads] if spec.threads else candidates(usable_cores()),
        batch_tokens=planner.batch_tokens,
        type_k=kind.number,
        type_v=kind.number,
        flash_attn_type=flash_attn_type,
        gpu_layers=gpu_layers,
        cell_bytes=planner.cell_bytes,
        heads=shape.attending_heads if shape.divisible else 0,
        copied=not gpu_layers and _fits_twice(header, free),
    )


def _fits_twice(header: GgufHeader, free: Free) -> bool:
    """Whether the weights can be copied without driving the file out of the system's cache, from
    where it is loaded at once the next time.
    """
    return free.host_bytes is not None and 2 * header.file_bytes <= free.host_bytes


def context_length_of(header: GgufHeader, spec: EngineSpec, free: Free) -> int:
    """The context that a server promises before it loads. Raises EngineLoadError for what cannot
    be with any amount of memory; too little of it only makes the context short.
    """
    shape = shape_of(header)
    kind, flash_attn_type = cache_type_of(shape, spec)
    planner = _Planner(header, shape, spec, kind, flash=flash_attn_type != FLASH_OFF)
    return planner.context_length(planner.affordable(0, free))


def cache_type_of(shape: ModelShape, spec: EngineSpec) -> tuple[CacheType, int]:
    """The cache's type, and whether flash attention is off, on or llama.cpp's own choice.

    Raises EngineLoadError: llama.cpp reads quantised values only with flash attention, and only
    where a head is a whole number of blocks (``llama_init_from_model``).
    """
    kind = CACHE_TYPES.get(spec.cache_type)
    if kind is None:
        names = ", ".join(CACHE_TYPES)
        raise EngineLoadError(f"cache_type = {spec.cache_type!r} is unknown; there are {names}")
    if not kind.quantised:
        chosen = {None: FLASH_AUTO, True: FLASH_ON, False: FLASH_OFF}
        return kind, chosen[spec.flash_attention]
    if spec.flash_attention is False:
        raise EngineLoadError(
            f'cache_type = "{kind.name}" needs flash attention, which flash_attention = false '
            'switches off; remove that setting, or use cache_type = "f16"'
        )
    for length in (shape.key_length, shape.value_length):
        if length % kind.block:
            raise EngineLoadError(
                f'cache_type = "{kind.name}" works in blocks of {kind.block} numbers, but this '
                f'model\'s heads have {length}; use cache_type = "f16"'
            )
    return kind, FLASH_ON


class _Planner:
    """The choices one after the other, each from those before it."""

    def __init__(
        self,
        header: GgufHeader,
        shape: ModelShape,
        spec: EngineSpec,
        kind: CacheType,
        *,
        flash: bool,
    ) -> None:
        self._shape = shape
        self._spec = spec
        self._kind = kind
        self._flash = flash
        self._trained = header.context_length or CONTEXT_WANTED
        self._explicit = spec.context_length
        if self._explicit is not None and header.context_length is not None:
            self._check_trained(self._explicit, header.context_length)
        self.batch_tokens = max(spec.batch_tokens or BATCH_TOKENS, spec.sequences_max)
        self.cell_bytes = cell_bytes(shape.layers, kind, kind, flash=flash)
        self._states = sum(layer.state_bytes for layer in shape.layers) * spec.sequences_max

    @staticmethod
    def _check_trained(asked: int, trained: int) -> None:
        if asked > trained:
            raise EngineLoadError(
                f"context_length = {asked}, but the model was trained for {trained} tokens"
            )

    def gpu_layers(self, free: Free) -> int:
        """As configured, or as many as fit."""
        everything = self._shape.everything
        if self._spec.gpu_layers is not None:
            asked = self._spec.gpu_layers
            return everything if asked < 0 else min(asked, everything)
        wanted = _aligned(self._explicit or min(self._trained, CONTEXT_WANTED))
        for layers in range(everything if free.device_bytes else 0, 0, -1):
            if self._on_device(layers, wanted) + self._states <= free.device_bytes:
                return layers
        return 0

    def _on_device(self, gpu_layers: int, cells: int) -> int:
        return (
            self._shape.device_weight_bytes(gpu_layers)
            + self._device_cell(gpu_layers) * cells
            + self._compute(cells)
        )

    def _device_cell(self, gpu_layers: int) -> int:
        moved = self._shape.on_device(gpu_layers)
        return cell_bytes(moved, self._kind, self._kind, flash=self._flash)

    def _compute(self, cells: int) -> int:
        return self._shape.compute_bytes(
            cells=cells, batch_tokens=self.batch_tokens, flash=self._flash
        )

    def affordable(self, gpu_layers: int, free: Free) -> int:
        """Cells that there may be at most, for what they take on the host and on devices."""
        device_cell = self._device_cell(gpu_layers)
        cells = _CELLS_MAX
        if gpu_layers and free.device_bytes:
            # There buffers are not free until they are used, so their growth counts too.
            growth = self._shape.compute_growth_bytes(
                batch_tokens=self.batch_tokens, flash=self._flash
            )
            left = free.device_bytes - self._on_device(gpu_layers, 0) - self._states
            cells = min(cells, left // (device_cell + growth))
        if host_cell := self.cell_bytes - device_cell:
            cells = min(cells, self._host_cache_bytes(gpu_layers, free) // host_cell)
        return max(0, cells - cells % _CELL_ALIGNMENT)

    def _host_cache_bytes(self, gpu_layers: int, free: Free) -> int:
        wanted = max(CACHE_BYTES_DEFAULT, self._shape.weight_bytes)
        if free.host_bytes is None:
            return wanted
        beside = free.host_bytes - self._shape.host_weight_bytes(gpu_layers) - self._compute(0)
        return max(0, min(wanted, (beside - self._states) // 2))

    def context_length(self, affordable: int) -> int:
        """As configured, or the longest that fits."""
        if self._explicit is not None:
            return self._explicit
        length = min(self._trained, CONTEXT_DEFAULT_MAX)
        while length > CONTEXT_MIN and length > affordable:
            length //= 2
        return max(length, min(CONTEXT_MIN, self._trained))

    def cells(self, context_length: int, affordable: int, gpu_layers: int, free: Free) -> int:
        """For one whole context at least, for one of each sequence at most.

        Raises EngineLoadError where not even the one fits.
        """
        cells = max(context_length, min(affordable, context_length * self._spec.sequences_max))
        cells = _aligned(cells)
        # Weights are mapped from the file and can be dropped and read again; these cannot.
        held = (self.cell_bytes - self._device_cell(gpu_layers)) * cells + self._states
        if free.host_bytes is not None and held > free.host_bytes:
            raise EngineLoadError(
                f"a context of {context_length} tokens takes {_mib(held)} of memory, and "
                f"{_mib(free.host_bytes)} may be taken. Lower context_length"
                + ("" if self._kind.quantised else ', or set cache_type = "q8_0"')
            )
        return cells


def _aligned(cells: int) -> int:
    return -(-cells // _CELL_ALIGNMENT) * _CELL_ALIGNMENT


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
