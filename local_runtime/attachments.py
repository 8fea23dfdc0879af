"""What is served with a model's weights: LoRA adapters, each under a name of its own, the projector
that lets the model see pictures, and the draft model that guesses ahead. Their files are found and
checked without loading them.
"""

from collections.abc import Sequence

import msgspec

from local_runtime.engines.contract import AdapterSpec, EngineSpec
from local_runtime.store.companions import check_adapter, check_projector
from local_runtime.store.gguf import GgufError, GgufHeader, read_header
from local_runtime.store.sources import SourceError, file_of


class AdapterSource(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter as configured: the name that clients use, its file, and how strongly it is
    applied (1: as it was trained)."""

    id: str
    source: str
    scale: float = 1.0


class AttachmentError(Exception):
    """A file does not fit; the text names it."""


def attach(
    spec: EngineSpec,
    header: GgufHeader,
    projector: str | None,
    adapters: Sequence[AdapterSource],
    draft: str | None = None,
) -> EngineSpec:
    """The engine's order with these files in it; ``header`` is the model's. Raises
    AttachmentError."""
    found: dict[str, AdapterSpec] = {}
    for adapter in adapters:
        try:
            path = file_of(adapter.source)
            check_adapter(read_header(path), header.architecture)
        except (SourceError, GgufError, OSError) as error:
            raise AttachmentError(f"the adapter {adapter.id}: {error}") from error
        found[adapter.id] = AdapterSpec(path=str(path.resolve()), scale=adapter.scale)
    projector_path = ""
    if projector is not None:
        try:
            path = file_of(projector)
            check_projector(read_header(path))
        except (SourceError, GgufError, OSError) as error:
            raise AttachmentError(f"projector: {error}") from error
        projector_path = str(path.resolve())
    draft_path = ""
    if draft is not None:
        try:
            path = file_of(draft)
            read_header(path)
        except (SourceError, GgufError, OSError) as error:
            raise AttachmentError(f"draft: {error}") from error
        draft_path = str(path.resolve())
    return msgspec.structs.replace(
        spec, adapters=found, projector_path=projector_path, draft_path=draft_path
    )
