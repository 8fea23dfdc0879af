"""What can be told of a model in the store from its headers, without loading it."""

from pathlib import Path

import msgspec

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.engines.llama.encoder_size import encoder_bytes
from local_runtime.engines.llama.footprint import footprint
from local_runtime.engines.torch_tasks.config import ConfigRefused
from local_runtime.engines.torch_tasks.folder import read_folder
from local_runtime.engines.torch_tasks.serving import host_bytes
from local_runtime.kinds import (
    CONTEXT_DEFAULT_MAX,
    Kind,
    KindError,
    encoder_context_length,
    kind_of,
)
from local_runtime.store.blobs import StoreError
from local_runtime.store.catalog import Manifest, Store
from local_runtime.store.gguf import GgufError, GgufHeader, read_header
from local_runtime.store.safetensors import SafetensorsError, read_safetensors


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """None is what the files do not say. ``memory_bytes`` is what it takes with the defaults, all
    of it on the host.
    """

    architecture: str | None = None
    parameters: int | None = None
    context_length: int | None = None
    chat_template: bool | None = None
    tools: bool | None = None
    pictures: bool = False
    memory_bytes: int | None = None


def facts_of(store: Store, manifest: Manifest) -> ModelFacts:
    """Raises StoreError, for a file that cannot be read or is not what it was."""
    try:
        if manifest.format == "gguf":
            header = read_header(store.weights_path(manifest))
            return _of_gguf(header, pictures=store.projector_path(manifest) is not None)
        headers = [
            read_safetensors(store.path_of(manifest, file)) for file in manifest.of_role("weights")
        ]
        parameters = sum(header.elements for header in headers)
        return _of_safetensors(store.weights_path(manifest), parameters)
    except (GgufError, SafetensorsError, OSError) as error:
        raise StoreError(f"{manifest.name}: {error}") from error


def _of_safetensors(first: Path, parameters: int) -> ModelFacts:
    """Of an encoder that torch serves, also what its configuration says."""
    try:
        folder = read_folder(first)
    except ConfigRefused:
        return ModelFacts(parameters=parameters)
    length = folder.config.context_length
    return ModelFacts(
        architecture=folder.config.family,
        parameters=parameters,
        context_length=length,
        memory_bytes=host_bytes(folder, min(length, CONTEXT_DEFAULT_MAX)),
    )


def _of_gguf(header: GgufHeader, *, pictures: bool) -> ModelFacts:
    parameters = 0
    for tensor in header.tensors:
        elements = 1
        for length in tensor.shape:
            elements *= length
        parameters += elements
    template = header.chat_template
    try:
        memory = _memory_bytes(header)
    except (EngineLoadError, KindError):
        memory = None
    return ModelFacts(
        architecture=header.architecture,
        parameters=parameters,
        context_length=header.context_length,
        chat_template=template is not None,
        tools=template is not None and "tools" in template,
        pictures=pictures,
        memory_bytes=memory,
    )


def _memory_bytes(header: GgufHeader) -> int:
    """Raises EngineLoadError and KindError for what cannot be served."""
    if kind_of(header) is not Kind.CHAT:
        return encoder_bytes(header, encoder_context_length(header))
    return footprint(header, EngineSpec(engine="llama", gpu_layers=0)).host_bytes
