"""Loading ggml's backends by name, for builds that keep them in files of their own.

Only explicitly: left to itself, ggml looks for them in the program's folder and then in the current
directory, where anybody may have put one.
"""

import ctypes
from pathlib import Path
from typing import Any

from local_runtime.engines.llama.libraries import accelerators, processor_variants


def ggml() -> Any:
    """The ggml that libllama itself uses; a second copy of it would know nothing."""
    import llama_cpp.llama_cpp as bindings

    return bindings._lib


def load_backend(path: Path) -> bool:
    """Load one backend; whether it says that it works here."""
    load = ggml().ggml_backend_load
    load.restype, load.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    return bool(load(str(path.resolve()).encode()))


def load_backends(variant: str) -> None:
    """The processor's variant that was chosen, and every accelerator's backend beside it.

    Does nothing where they are built in, or have been loaded. Raises OSError where ``variant`` is
    none of this build's, or cannot be loaded.
    """
    count = ggml().ggml_backend_reg_count
    count.restype = ctypes.c_size_t
    known = {path.name: path for path in processor_variants()}
    if count() or not known:
        return
    chosen = known.get(Path(variant).name)
    if chosen is None or not load_backend(chosen):
        raise OSError(f"{variant or 'no variant'} of llama.cpp's processor library can be loaded")
    for path in accelerators():
        load_backend(path)  # one whose driver is missing says so in the log, and is left out
