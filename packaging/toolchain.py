"""What the machine must bring: Python with venv, a C and a C++ compiler, cmake. Told up front."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PYTHON_MIN = (3, 11)
CMAKE_MIN = (3, 21)  # llama-cpp-python's CMakeLists.txt

_INSTALL_COMPILER = (
    "  Debian, Ubuntu:  sudo apt install build-essential\n"
    "  Fedora:          sudo dnf install gcc gcc-c++\n"
    "  macOS:           xcode-select --install"
)
_INSTALL_VENV = (
    "  Debian, Ubuntu:  sudo apt install python3-venv\n"
    "  Fedora:          sudo dnf install python3\n"
    "  macOS:           brew install python@3.13"
)


@dataclass(frozen=True)
class _Language:
    """How to find and try the compiler of one language."""

    variable: str
    names: tuple[str, ...]
    suffix: str
    what: str
    trial: str


_C = _Language(
    variable="CC",
    names=("cc", "gcc", "clang"),
    suffix=".c",
    what="C compiler",
    trial="#include <stdint.h>\nint main(void) { return 0; }\n",
)
_CXX = _Language(
    variable="CXX",
    names=("c++", "g++", "clang++"),
    suffix=".cpp",
    what="C++ compiler",
    trial="#include <vector>\nint main() { return (int)std::vector<int>().size(); }\n",
)


class Missing(Exception):
    """Something that the machine's owner must install first. The text says what and how."""


def require_python() -> None:
    """Refuse a Python that is too old, or that cannot make virtual environments."""
    if sys.version_info < PYTHON_MIN:
        found = ".".join(map(str, sys.version_info[:3]))
        raise Missing(f"Python 3.11 or newer is needed; {sys.executable} is {found}.")
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise Missing(
                f"{sys.executable} has no module {module!r}, which makes the virtual environment."
                f" Install it, then run this again:\n{_INSTALL_VENV}"
            )


def compilers() -> tuple[str, str]:
    """The C and the C++ compiler as ``path: first line of --version``. Raises Missing.

    Windows: cmake finds the compiler by itself.
    """
    if os.name == "nt":
        return ("cl", "cl")
    return (_describe(_find(_C)), _describe(_find(_CXX)))


def try_compilers() -> None:
    """Build a small program with each: a compiler without its headers is found out here."""
    if os.name != "nt":
        for language in (_C, _CXX):
            _try(language, _find(language))


def _find(language: _Language) -> list[str]:
    chosen = os.environ.get(language.variable)
    candidates = [shlex.split(chosen)] if chosen else [[name] for name in language.names]
    found = next((c for c in candidates if c and shutil.which(c[0])), None)
    if found is None:
        told = f" ({language.variable}={chosen} is not on PATH)" if chosen else ""
        raise Missing(
            f"No {language.what} found{told}; llama.cpp is built from source. Install one, then run"
            f" this again:\n{_INSTALL_COMPILER}"
        )
    return found


def _version(command: list[str]) -> str:
    answer = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    return (answer.stdout or answer.stderr).strip()


def _describe(command: list[str]) -> str:
    path = shutil.which(command[0]) or command[0]
    return f"{' '.join([path, *command[1:]])}: {_version(command).partition(chr(10))[0]}"


def _try(language: _Language, command: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, f"trial{language.suffix}")
        program.write_text(language.trial, encoding="ascii")
        trial = subprocess.run(
            [*command, str(program), "-o", str(Path(folder, "trial"))],
            capture_output=True,
            text=True,
            check=False,
        )
    if trial.returncode != 0:
        raise Missing(
            f"The {language.what} ({' '.join(command)}) cannot build a small program:\n"
            f"{trial.stderr.strip()[-1500:]}\nInstall a complete one, then run this again:\n"
            f"{_INSTALL_COMPILER}"
        )


def cxx() -> list[str]:
    """The command of the C++ compiler. Raises Missing."""
    return _find(_CXX)


def cxx_is_gcc() -> bool:
    """Whether the C++ compiler is gcc, some of whose flags clang refuses."""
    return os.name != "nt" and "Free Software Foundation" in _version(_find(_CXX))


def system_cmake() -> tuple[str, tuple[int, ...]] | None:
    """The path and version of the cmake on PATH; None where there is none that runs."""
    path = shutil.which("cmake")
    if path is None:
        return None
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    if found is None:
        return None
    return path, tuple(int(part) for part in found.groups(default="0"))


def cmake_suffices() -> bool:
    """Whether the system's cmake will do; otherwise the locked one is installed into .venv."""
    found = system_cmake()
    return found is not None and found[1] >= CMAKE_MIN
