"""The engines that ship, by name. Nothing native is imported before ``make_engine`` is called."""

from local_runtime.engines.contract import Engine


def make_engine(name: str) -> Engine:
    """A fresh engine, nothing loaded. Raises ValueError for an unknown name."""
    if name == "fake":
        from local_runtime.engines.fake import FakeEngine

        return FakeEngine()
    if name == "llama":
        from local_runtime.engines.llama.engine import LlamaEngine

        return LlamaEngine()
    if name == "llama_encoder":
        from local_runtime.engines.llama.encoder import LlamaEncoder

        return LlamaEncoder()
    if name == "torch":
        from local_runtime.engines.torch_tasks.start import fresh_engine

        return fresh_engine()
    raise ValueError(f"there is no engine {name!r}")
