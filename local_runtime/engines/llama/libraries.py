"""Which of llama.cpp's libraries are there. Looks at names only; loads nothing."""

from importlib.util import find_spec
from pathlib import Path

PROCESSOR_LIBRARY = "processor_library"  # the option of an EngineSpec that names the chosen one
_ACCELERATORS = ("cuda", "hip", "vulkan", "metal", "sycl", "musa", "opencl", "cann")
_SUFFIXES = {".so", ".dylib", ".dll"}


def library_folder() -> Path | None:
    """Where the bindings look for the libraries; None where they are not installed."""
    found = find_spec("llama_cpp")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0], "lib")


def processor_variants(folder: Path | None = None) -> list[Path]:
    """The processor's backend in a build that has it several times (GGML_CPU_ALL_VARIANTS)."""
    return _named("ggml-cpu-", folder)


def built_in(folder: Path | None = None) -> list[Path]:
    """The processor's backend in a build that has it once."""
    folder = folder or library_folder()
    return [] if folder is None else _files(folder, {"ggml-cpu"})


def accelerators(folder: Path | None = None) -> list[Path]:
    """Backends of graphics cards and the like, in files of their own."""
    folder = folder or library_folder()
    names = {f"ggml-{name}" for name in _ACCELERATORS}
    found = [] if folder is None else _files(folder, names)
    return [path for path in found if path.suffix in _SUFFIXES]


def _named(prefix: str, folder: Path | None) -> list[Path]:
    folder = folder or library_folder()
    if folder is None or not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in _SUFFIXES and path.name.removeprefix("lib").startswith(prefix)
    )


def _files(folder: Path, stems: set[str]) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.removeprefix("lib").split(".")[0] in stems
        and not _SUFFIXES.isdisjoint(path.suffixes)  # libggml-cpu.so.0 is what is loaded
    )
