"""A graphics card's backend of llama.cpp: a library that fits into the binary beside the others.

``make binary ACCELERATOR=vulkan`` (or ``cuda``) puts it in. The binary's llama.cpp keeps each
backend in a library of its own and loads what is there, so only that library is built, from the
same source with the same flags, and the same binary runs where no such card or driver is. Metal
needs nothing: on a Mac the wheel has it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import toolchain
from children import clean_environment
from llama_cmake import Builder, KeptFiles, cmake_flags
from llama_wheel import cache_folder, recipe
from progress import Display

_TRIAL_SECONDS_MAX = 120


@dataclass(frozen=True)
class Accelerator:
    """What a backend is built with. ``trial`` is a program that ``compiler`` (None: the machine's
    own for C++) must take, ``libraries`` are those of its toolchain that go along.
    """

    name: str
    setting: str
    tools: tuple[str, ...]
    compiler: tuple[str, ...] | None
    suffix: str
    trial: str
    libraries: tuple[str, ...]
    install: str

    @property
    def library(self) -> str:
        """The file's name."""
        if os.name == "nt":
            return f"ggml-{self.name}.dll"
        return f"libggml-{self.name}.so"  # a module, also on a Mac


ACCELERATORS = {
    "vulkan": Accelerator(
        name="vulkan",
        setting="GGML_VULKAN=ON",
        tools=("glslc",),
        compiler=None,
        suffix=".cpp",
        trial=(
            "#include <vulkan/vulkan.hpp>\n#include <spirv/unified1/spirv.hpp>\n"
            "int main() { return sizeof(vk::LayerSettingEXT) == 0; }\n"
        ),
        libraries=(),  # the loader belongs to the driver
        install=(
            "  Debian, Ubuntu:  sudo apt install glslc libvulkan-dev spirv-headers\n"
            "  Fedora:          sudo dnf install glslc vulkan-devel spirv-headers-devel\n"
            "of Vulkan 1.3.272 or newer (Debian 13). Elsewhere take the Vulkan SDK, its folder\n"
            "in VULKAN_SDK and its glslc on PATH. Only a new glslc uses the matrix units of cards."
        ),
    ),
    "cuda": Accelerator(
        name="cuda",
        setting="GGML_CUDA=ON",
        tools=("nvcc",),
        compiler=("nvcc", "-lcublas"),
        suffix=".cu",
        trial="#include <cublas_v2.h>\nint main() { cublasHandle_t h; return cublasCreate(&h); }\n",
        libraries=("cudart", "cublas", "cublasLt"),  # NVIDIA's terms let these be passed on
        install="  NVIDIA's CUDA toolkit, 12 or newer, with cuBLAS, and its nvcc on PATH.",
    ),
}


def backend(root: Path, venv: Path, name: str, display: Display) -> list[Path]:
    """The library and what it needs of the toolchain; built first where it is not kept.

    ``venv`` has ninja, and the llama-cpp-python that it must fit. Raises Missing, with what to
    install, and ChildFailed.
    """
    wanted = ACCELERATORS[name]
    locks = root / "packaging" / "locks"
    gcc = toolchain.cxx_is_gcc()
    made_by = recipe(locks / "llama.txt", "everywhere", toolchain.compilers(), gcc=gcc)
    made_by = replace(
        made_by,
        flags=(*made_by.flags, wanted.setting),
        compilers=(*made_by.compilers, *map(_version, wanted.tools)),
    )
    kept = KeptFiles(cache_folder(), [wanted.library])
    place = kept.find(made_by)
    if place is None:
        require(wanted)
        kept.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Not in /tmp, which may be small or closed to programs.
        with tempfile.TemporaryDirectory(dir=kept.folder) as work:
            builder = Builder(locks, venv, Path(work), display)
            what, flags = f"llama.cpp for {name}", cmake_flags(made_by, Path(work))
            source, target = builder.fetch(), [f"ggml-{name}"]
            built = builder.build(what, source, Path(work, "build"), flags, target)
            place = kept.keep(_gathered(wanted, built, Path(work, "kept")), made_by)
    return sorted(path for path in place.iterdir() if path.suffix != ".json")


def require(wanted: Accelerator) -> None:
    """Raises Missing where the machine has not what building ``wanted`` takes."""
    why = next((f"there is no {tool}" for tool in wanted.tools if not shutil.which(tool)), "")
    why = why or _refusal(wanted)
    if why:
        raise toolchain.Missing(
            f"llama.cpp cannot be built for {wanted.name} here: {why}.\n"
            f"Install this, then run it again:\n{wanted.install}"
        )


def _refusal(wanted: Accelerator) -> str:
    """What the compiler says of a small program, where it does not take it."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, f"trial{wanted.suffix}")
        source.write_text(wanted.trial, encoding="ascii")
        compiler, *options = wanted.compiler or toolchain.cxx()
        if (sdk := os.environ.get("VULKAN_SDK")) and wanted.name == "vulkan":
            options.append(f"-I{sdk}/include")
        command = [compiler, str(source), "-o", str(Path(folder, "trial")), *options]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_TRIAL_SECONDS_MAX
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{compiler} does not work ({error})"
    said = (done.stderr or done.stdout).replace(folder + os.sep, "")
    faults = [line for line in said.splitlines() if "error" in line] or said.splitlines()
    return "" if done.returncode == 0 else f"{Path(compiler).name} says {faults[:1]}"


def _version(tool: str) -> str:
    """Its own words, for the recipe: another compiler of shaders makes another library."""
    if shutil.which(tool) is None:
        return tool
    told = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
    return " ".join(told.stdout.split())


def _gathered(wanted: Accelerator, built: Path, into: Path) -> Path:
    """The library alone, stripped, and the libraries of its toolchain, in one folder."""
    into.mkdir()
    library = into / wanted.library
    shutil.copy(built / wanted.library, library)
    if sys.platform == "linux":
        subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)
        for path in _needed(library, wanted.libraries):
            shutil.copy(path, into)
    return into


def _needed(library: Path, names: tuple[str, ...]) -> list[Path]:
    """Which files the loader would take for the libraries of these ``names``."""
    if not names:
        return []
    told = subprocess.run(
        ["ldd", str(library)],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(library.parent),
    )
    pattern = re.compile(rf"lib({'|'.join(names)})\.so\S* => (\S+)")
    return [Path(found[2]) for found in pattern.finditer(told.stdout)]
