"""LoRA adapters: small files that change what a model says, beside the model itself.

llama.cpp applies adapters to a whole context, so one step computes for one adapter only (or for the
model as it is); whose turn it is the scheduler says. An adapter's file is checked before native
code sees it, and that it belongs to this architecture.
"""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp

from local_runtime.engines.contract import AdapterSpec, EngineLoadError, RequestRefused
from local_runtime.engines.llama import native
from local_runtime.store.companions import check_adapter
from local_runtime.store.gguf import GgufError, read_header


class Adapters:
    """The adapters of one model, by name; the empty name is the model as it is."""

    def __init__(
        self, model: native.Model, specs: Mapping[str, AdapterSpec], architecture: str
    ) -> None:
        """Load them all. Raises EngineLoadError, which names the one that does not fit."""
        self._loaded: dict[str, tuple[Any, float]] = {}
        self._applied: tuple[Any, str] = None, ""
        for name, spec in specs.items():
            try:
                check_adapter(read_header(Path(spec.path)), architecture)
            except (GgufError, OSError) as error:
                raise EngineLoadError(f"the adapter {name}: {error}") from error
            handle = llama_cpp.llama_adapter_lora_init(model.handle, spec.path.encode())
            if not handle:
                raise EngineLoadError(
                    f"the adapter {name} does not fit this model: it changes tensors that the "
                    "model lacks, or has them in other sizes; the log has the reason"
                )
            if llama_cpp.llama_adapter_get_alora_n_invocation_tokens(handle):
                raise EngineLoadError(
                    f"the adapter {name} is one that a phrase in the prompt switches on (aLoRA), "
                    "which is not supported"
                )
            self._loaded[name] = handle, spec.scale

    def require(self, name: str) -> None:
        """Raises RequestRefused for a name that is not loaded."""
        if name and name not in self._loaded:
            raise RequestRefused(f"There is no adapter {name!r} of this model.", param="model")

    def apply(self, context: native.Context, name: str) -> None:
        """For the batches from now on. Free of cost where it is the one that was applied last."""
        if self._applied[0] is context.handle and self._applied[1] == name:
            return
        handles = (llama_cpp.llama_adapter_lora_p_ctypes * 1)()
        scales = (ctypes.c_float * 1)()
        if name:
            handles[0], scales[0] = self._loaded[name]
        if llama_cpp.llama_set_adapters_lora(context.handle, handles, 1 if name else 0, scales):
            raise RuntimeError(f"llama_set_adapters_lora failed for {name!r}")
        self._applied = context.handle, name
