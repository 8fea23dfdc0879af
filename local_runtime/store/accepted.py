"""What may come into the store: GGUF and safetensors, and the small files that go with them.

Nothing that runs or unpickles when it is read: no .bin, .pt, .pkl, no Python. Every header is
checked before the file counts as there.
"""

import json
from pathlib import Path, PurePosixPath

from local_runtime.store.blobs import StoreError
from local_runtime.store.gguf import GgufError, GgufHeader, read_file, read_header
from local_runtime.store.names import split_of
from local_runtime.store.nesting import depth_of
from local_runtime.store.safetensors import SafetensorsError, read_safetensors

SMALL_BYTES_MAX = 64 * 1024 * 1024
JSON_DEPTH_MAX = 64
_WEIGHTS = (".gguf", ".safetensors")
_TEXTS = ("merges.txt", "vocab.txt", "chat_template.jinja")
_OTHERS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


class FileRefused(StoreError):
    """A file may not come into the store; the text says why."""


def role_of(name: str) -> str | None:
    """What a file is for, by its name; None for one that the store does not take."""
    path = PurePosixPath(name.lower())
    if path.name.endswith(".gguf"):
        return "projector" if "mmproj" in path.name else "weights"
    if path.name.endswith(".safetensors"):
        return "weights"
    if path.name in _TEXTS or path.name in _OTHERS:
        return "tokenizer"
    if path.suffix == ".json":
        return "tokenizer" if "token" in path.name or path.name == "vocab.json" else "config"
    return None


def check_file(path: Path, name: str) -> None:
    """Check the content of one file that is to be called ``name``. Raises FileRefused, OSError."""
    lower = name.lower()
    if role_of(name) is None:
        raise FileRefused(
            f"{name}: the store takes only GGUF and safetensors files, and their configuration and"
            " tokenizer; what can hold code is refused"
        )
    try:
        if lower.endswith(".gguf"):
            read_header(path) if split_of(name)[2] == 1 else read_file(path)
        elif lower.endswith(".safetensors"):
            read_safetensors(path)
        else:
            _check_small(path, lower)
    except (GgufError, SafetensorsError) as error:
        reason = str(error).removeprefix(f"{path.name}: ")
        raise FileRefused(f"{name}: {reason}") from error


def check_model(first: Path) -> GgufHeader:
    """Check a whole GGUF model, all its parts in place. Raises FileRefused, OSError."""
    try:
        return read_header(first)
    except GgufError as error:
        raise FileRefused(str(error)) from error


def _check_small(path: Path, name: str) -> None:
    size = path.stat().st_size
    if size > SMALL_BYTES_MAX:
        raise FileRefused(f"{name}: {size} bytes are too many for such a file")
    if not name.endswith(".json"):
        return
    data = path.read_bytes()
    if depth_of(data) > JSON_DEPTH_MAX:
        raise FileRefused(f"{name}: it is nested too deeply")
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileRefused(f"{name}: it is not valid JSON: {error}") from error
