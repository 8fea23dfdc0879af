"""What memory a model will take before it was ever loaded, and what there is for it."""

from pathlib import Path

import msgspec

from local_runtime.engines.contract import EngineLoadError, EngineSpec
from local_runtime.engines.llama.encoder_size import encoder_bytes
from local_runtime.engines.llama.footprint import footprint
from local_runtime.engines.torch_tasks.serving import expected_bytes
from local_runtime.kinds import encoder_context_length
from local_runtime.lifecycle.memory import available_bytes, budget_bytes
from local_runtime.store.gguf import read_header


def spare_bytes() -> int | None:
    """What the machine can give models now."""
    available = available_bytes()
    return None if available is None else budget_bytes(available)


def guessed_bytes(engine_spec: EngineSpec) -> int:
    """A guess of what it will take in memory, before it was ever loaded."""
    if engine_spec.engine == "fake":
        options = engine_spec.options
        return int(options.get("footprint_bytes", options.get("memory_bytes", 0)))
    if engine_spec.engine == "torch":
        return expected_bytes(engine_spec)
    header = read_header(Path(engine_spec.path))
    if engine_spec.engine == "llama_encoder":
        return encoder_bytes(header, engine_spec.context_length or encoder_context_length(header))
    # Without what is free: a device may turn out to take a part of it, which is measured then.
    beside = [engine_spec.projector_path, *(each.path for each in engine_spec.adapters.values())]
    beside_bytes = sum(Path(path).stat().st_size for path in beside if path)
    try:
        return footprint(header, engine_spec).host_bytes + beside_bytes
    except EngineLoadError:  # more than all models may have: the room says so, in its own words
        unbounded = msgspec.structs.replace(engine_spec, memory_bytes_max=None)
        return footprint(header, unbounded).host_bytes + beside_bytes
