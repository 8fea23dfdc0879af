"""The files that are loaded beside a model's weights: adapters and projectors, by their headers.

Which keys they have is llama.cpp's ``src/llama-adapter.cpp`` and ``tools/mtmd/clip.cpp``. Checked
when the configuration is read, and again by the engine.
"""

from local_runtime.store.gguf import GgufError, GgufHeader


def check_adapter(header: GgufHeader, architecture: str) -> None:
    """Raises GgufError unless this is a LoRA adapter for models of the ``architecture``."""
    kind, form = header.metadata.get("general.type"), header.metadata.get("adapter.type")
    if kind != "adapter" or form != "lora":
        raise GgufError(
            f"it is no LoRA adapter: its general.type is {kind!r} and its adapter.type {form!r}; "
            "llama.cpp's convert_lora_to_gguf.py makes one"
        )
    if not isinstance(header.metadata.get("adapter.lora.alpha", 0.0), float):
        raise GgufError("its adapter.lora.alpha is not a number")
    if header.architecture != architecture:
        raise GgufError(
            f"it is an adapter for models of the architecture {header.architecture!r}, and this "
            f"model is {architecture!r}"
        )


def check_projector(header: GgufHeader) -> None:
    """Raises GgufError unless this is a projector that reads pictures."""
    if header.architecture != "clip":
        raise GgufError(
            f"it is no projector: its general.architecture is {header.architecture!r}, not 'clip'; "
            "projectors are the files with mmproj in their names"
        )
    if header.metadata.get("clip.has_vision_encoder") is not True:
        raise GgufError("it is a projector, but not one that reads pictures")
    for name in ("image_size", "patch_size", "embedding_length", "block_count"):
        value = header.metadata.get(f"clip.vision.{name}")
        if not isinstance(value, int) or not 0 < value < 2**20:
            raise GgufError(f"its clip.vision.{name} is {value!r}")
