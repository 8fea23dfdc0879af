"""What the router has to know of a model that torch serves, before torch is anywhere near it."""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from local_runtime.engines.contract import EngineSpec
from local_runtime.engines.torch_tasks.config import ConfigRefused, EncoderConfig
from local_runtime.engines.torch_tasks.folder import SUFFIX, EncoderFolder, read_folder
from local_runtime.kinds import CONTEXT_DEFAULT_MAX, Kind
from local_runtime.store.sources import SourceError, file_of

if TYPE_CHECKING:
    from local_runtime.runtime import LocalModelSpec

ENGINE = "torch"
BATCH_TOKENS = 512
"""What a batch usually holds; a longer text, which must be seen whole, gets one of its own."""

TEXTS_MAX = 64
PROCESS_BYTES = (
    320 * 1024 * 1024
)  # a child beside its model: Python, torch's libraries, their heaps
_BYTES_PER_VALUE = 4
_NEEDED = ("torch", "safetensors", "tokenizers")


def torch_is_here() -> bool:
    """Whether it could be imported; nothing is."""
    return all(importlib.util.find_spec(name) is not None for name in _NEEDED)


def serves(source: str, engine: str = "auto") -> bool:
    """Whether a model is torch's: files of safetensors, unless another engine is configured."""
    if engine != "auto" or source.startswith("fake:"):
        return engine == ENGINE
    try:
        return file_of(source).suffix == SUFFIX
    except SourceError:
        return False


def order(wanted: "LocalModelSpec") -> tuple[Kind, EngineSpec, int]:
    """What the model does, the engine's order, and the longest text. Raises ConfigRefused."""
    try:
        path = file_of(wanted.source)
        if path.suffix != SUFFIX:
            raise ConfigRefused(f"{path.name} is no safetensors file, which is what torch serves")
        if not torch_is_here():
            raise ConfigRefused(_without_torch(path))
        folder = read_folder(path)
    except (SourceError, OSError) as error:
        raise ConfigRefused(str(error)) from error
    if wanted.projector is not None or wanted.adapters or wanted.draft is not None:
        raise ConfigRefused(
            "a model that makes vectors or scores takes no projector, no draft and no adapters"
        )
    if wanted.task not in {"auto", folder.kind}:
        does = "scores" if folder.kind is Kind.RERANK else "vectors"
        raise ConfigRefused(f'task = "{wanted.task}", but the model makes {does}. Leave task out')
    trained = folder.config.context_length
    if wanted.context_length is not None and wanted.context_length > trained:
        raise ConfigRefused(
            f"context_length = {wanted.context_length}, but the model was trained for {trained}"
            " tokens. Lower it"
        )
    length = wanted.context_length or min(trained, CONTEXT_DEFAULT_MAX)
    engine_spec = EngineSpec(
        engine=ENGINE,
        path=str(path.resolve()),
        options={"task": wanted.task},
        context_length=length,
        threads=wanted.threads,
        gpu_layers=wanted.gpu_layers,
        sequences_max=TEXTS_MAX,
    )
    return folder.kind, engine_spec, length


def host_bytes(folder: EncoderFolder, context_length: int) -> int:
    """The most that it takes once it has read its longest text. Weights that are stored as they are
    computed with stay mapped; others are held twice while they are loaded.
    """
    held = max(folder.bytes, _BYTES_PER_VALUE * folder.config.parameters)
    return held + batch_bytes(folder.config, context_length) + PROCESS_BYTES


def expected_bytes(spec: EngineSpec) -> int:
    """``host_bytes`` of an order. Raises ConfigRefused, OSError."""
    folder = read_folder(Path(spec.path))
    return host_bytes(folder, spec.context_length or folder.config.context_length)


def batch_bytes(config: EncoderConfig, context_length: int) -> int:
    """What the longest batch needs beside the weights: the vectors of a layer, and what each head
    sees of the longest text where it is looked at as a whole.
    """
    room = max(BATCH_TOKENS, context_length)
    values = 2 * config.inner + 8 * config.width
    seen = config.heads * context_length * context_length
    return _BYTES_PER_VALUE * (room * values + 2 * seen)


def _without_torch(path: Path) -> str:
    name = path.name
    if getattr(sys, "frozen", False):
        return (
            f"{name} is served by torch, which this edition of Turnpike does not have. Take the"
            " edition with torch (turnpike-VERSION-linux-x86_64-torch), or a GGUF file of the model"
        )
    return (
        f"{name} is served by torch, which is not installed here. `make torch` installs it into"
        " .venv; or take a GGUF file of the model, which llama.cpp serves without it"
    )
