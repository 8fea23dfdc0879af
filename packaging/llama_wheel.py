"""llama-cpp-python built from its hash-checked sdist, and kept for the next clone.

pip's own wheel cache knows nothing of build flags, so it is switched off; the finished wheel is
kept in the user's cache folder under a key of everything that its bytes depend on.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kept import Kept
from stamp import sha256

PACKAGE = "llama-cpp-python"

# Else libraries are linked with this clone's path, and its length shows after cmake takes it out.
# (llama-cpp-python's own cmake file switches CMAKE_BUILD_WITH_INSTALL_RPATH off again.)
_NO_PATH = "CMAKE_BUILD_RPATH_USE_ORIGIN=ON"

PORTABLE = (_NO_PATH, "GGML_NATIVE=OFF")
"""SSE4.2 to AVX2 on x86: runs on every machine of the last ten years, moved or copied."""

EVERYWHERE = (
    *PORTABLE,
    "GGML_BACKEND_DL=ON",
    "GGML_CPU_ALL_VARIANTS=ON",
    "CMAKE_INSTALL_BINDIR=llama_cpp/lib",  # where cmake puts the variants
)
"""The processor's code once for each kind of processor, one of them loaded: for the binary."""

NATIVE = (_NO_PATH, "GGML_NATIVE=ON")
# gcc 12 deletes the stores that fill the AMX tile configuration, because its intrinsic declares
# only 8 of the 64 bytes as read (ggml-org/llama.cpp#26954); these passes do the deleting.
_AMX_GCC = ("-fno-tree-dse", "-fno-dse")

_FLAGS = {"portable": PORTABLE, "native": NATIVE, "everywhere": EVERYWHERE}

_NINJA = re.compile(r"^\s*\[(\d+)/(\d+)\]")


def flags(variant: str, *, gcc: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What cmake is told for ``portable``, ``native`` or ``everywhere``, and flags for C++."""
    return _FLAGS[variant], _AMX_GCC if gcc and variant != "portable" else ()


def ninja_progress(line: str) -> tuple[int, int] | None:
    """``[140/193] …`` as (140, 193)."""
    found = _NINJA.match(line)
    return (int(found[1]), int(found[2])) if found else None


@dataclass(frozen=True)
class Recipe:
    """What the bytes of the wheel depend on."""

    version: str
    sdist_sha256: str
    flags: tuple[str, ...]  # cmake's definitions
    cxx_flags: tuple[str, ...]
    compilers: tuple[str, ...]
    system: str
    machine: str
    libc: str
    cpu: str  # only where the build is for this very processor

    def key(self) -> str:
        """The name of its folder in the cache."""
        text = json.dumps(self.__dict__, sort_keys=True)
        return f"{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"

    def definitions(self, work: Path) -> list[str]:
        """What cmake is told for a build in ``work``, whose path stays out of the libraries, so
        that all clones build the same.

        The compilers' flags are among them: cmake would not look at CXXFLAGS beside them.
        """
        # Microsoft's compiler knows no such option, and its own flags would be replaced. cmake
        # reads the quotes that keep a path with blanks together; single ones it stumbles over.
        mapped = () if os.name == "nt" else (f'"-ffile-prefix-map={work}=."',)
        given = {"C": mapped, "CXX": (*self.cxx_flags, *mapped)}
        return [
            *self.flags,
            *(f"CMAKE_{k}_FLAGS={' '.join(v)}" for k, v in given.items() if v),
        ]


def recipe(lock: Path, variant: str, compilers: tuple[str, str], *, gcc: bool) -> Recipe:
    """The recipe for this machine from the lock file's one requirement."""
    text = lock.read_text(encoding="utf-8")
    pin = re.search(rf"^{PACKAGE}==(\S+)", text, re.MULTILINE)
    digests = re.findall(r"--hash=sha256:([0-9a-f]{64})", text)
    if pin is None or len(digests) != 1:
        raise ValueError(f"{lock} must pin {PACKAGE} with exactly one hash, its sdist's")
    settings, cxx_flags = flags(variant, gcc=gcc)
    return Recipe(
        version=pin[1],
        sdist_sha256=digests[0],
        flags=settings,
        cxx_flags=cxx_flags,
        compilers=compilers,
        system=platform.system(),
        machine=platform.machine(),
        libc="-".join(platform.libc_ver()),
        cpu=_cpu() if variant == "native" else "",
    )


def _cpu() -> str:
    """The processor and its features, so that a native wheel is never reused on another one."""
    if sys.platform == "darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"],
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.stdout.strip()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def cache_folder() -> Path:
    """Where this user's caches lie, by the platform's own rule."""
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        configured = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(configured) if configured.startswith("/") else Path.home() / ".cache"
    return base / "turnpike"


class WheelCache:
    """Finished wheels by recipe: ``wheels/KEY/*.whl`` beside ``recipe.json`` with its SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._kept = Kept(folder / "wheels", "recipe.json")

    def find(self, wanted: Recipe) -> Path | None:
        """The wheel, if it is there whole; a damaged one is removed."""
        found = self._kept.find(wanted.key(), lambda note: {_name(note): note["sha256"]})
        return found and found[0] / _name(found[1])

    def keep(self, built: Path, made_by: Recipe) -> Path:
        """Move a finished wheel in, in one step, so that no reader sees half of it."""

        def fill(entry: Path) -> dict[str, object]:
            entry.mkdir()
            shutil.move(built, entry / built.name)
            digest = sha256(entry / built.name)
            return {"wheel": built.name, "sha256": digest, "recipe": made_by.__dict__}

        return self._kept.keep(made_by.key(), fill) / built.name


def _name(note: Any) -> str:
    return Path(str(note["wheel"])).name
