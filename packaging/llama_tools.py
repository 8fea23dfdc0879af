"""llama.cpp's own programs, for the benches: what our engine is compared with, built like ours.

``python packaging/llama_tools.py`` builds llama-server, llama-batched-bench and llama-quantize from
the sdist that ``locks/llama.txt`` pins, with the flags of the llama-cpp-python in ``.venv`` and the
same compilers, and prints the folder that they lie in. They are kept in the user's cache folder; a
second run finds them there. ``--cuda`` builds them for NVIDIA's GPUs.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import toolchain
from children import ChildFailed, clean_environment, run
from llama_build import compile_jobs
from llama_wheel import Recipe, cache_folder, ninja_progress, recipe
from pip_progress import PipProgress
from progress import Display
from stamp import Stamp

PROGRAMS = ("llama-server", "llama-batched-bench", "llama-quantize")

# What the wheel's own build leaves out too, and what a server without a browser does not need.
WITHOUT = (
    "LLAMA_BUILD_APP", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_UI",
    "LLAMA_OPENSSL", "LLAMA_USE_PREBUILT_UI",
)  # fmt: skip
CUDA = ("cmake.define.GGML_CUDA=ON",)
_NOTE = "programs.json"
_SUFFIX = ".exe" if os.name == "nt" else ""


def cmake_flags(made_by: Recipe) -> list[str]:
    """For cmake itself, from the config settings that the wheel was built with."""
    settings = [setting.removeprefix("cmake.define.") for setting in made_by.flags]
    # Next to each other in one folder, programs and libraries can be moved there when done.
    origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
    return [
        f"-D{setting}"
        for setting in (
            *("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=ON", *settings),
            *("CMAKE_BUILD_WITH_INSTALL_RPATH=ON", f"CMAKE_INSTALL_RPATH={origin}"),
            *(f"{name}=OFF" for name in WITHOUT),
        )
    ]


class Programs:
    """Finished programs by recipe: ``llama.cpp/KEY/`` beside a note with their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "llama.cpp"

    def find(self, made_by: Recipe) -> Path | None:
        """Their folder, if all are there whole; a damaged one is removed."""
        place = self.folder / made_by.key()
        try:
            note = json.loads((place / _NOTE).read_text(encoding="utf-8"))
            if all(note["sha256"][name] == _sha256(place / _file(name)) for name in PROGRAMS):
                return place
        except FileNotFoundError:
            if not place.exists():
                return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(place, ignore_errors=True)
        return None

    def keep(self, built: Path, made_by: Recipe) -> Path:
        """Copy what was built (programs and libraries) in, seen by readers all at once."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = self.folder / made_by.key()
        with tempfile.TemporaryDirectory(dir=self.folder) as draft:
            entry = Path(draft, "entry")
            shutil.copytree(built, entry, symlinks=True)
            digests = {name: _sha256(entry / _file(name)) for name in PROGRAMS}
            note = {"sha256": digests, "recipe": made_by.__dict__}
            (entry / _NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            entry.rename(place)
        return place


class Builder:
    """Fetches and builds in ``work``; every command's output goes to ``work/build.log``."""

    def __init__(self, locks: Path, venv: Path, work: Path, display: Display) -> None:
        nt = os.name == "nt"
        self._locks = locks
        self._venv = venv
        self._python = venv / ("Scripts/python.exe" if nt else "bin/python")
        self._work = work
        self._display = display
        self.log = work / "build.log"

    def fetch(self) -> Path:
        """llama.cpp's source, out of llama-cpp-python's own."""
        self._display.begin("llama.cpp, source")
        watcher = PipProgress(1)

        def on_line(line: str) -> None:
            watcher.line(line)
            self._display.update(watcher.fraction(), watcher.detail)

        self._run(
            [
                *(str(self._python), "-m", "pip", "download", "--require-hashes", "--no-deps"),
                *("--no-build-isolation", "--progress-bar", "raw", "--no-binary", ":all:"),
                *("--dest", str(self._work), "-r", str(self._locks / "llama.txt")),
            ],
            on_line,
        )
        sdist = next(self._work.glob("llama_cpp_python-*.tar.gz"))
        shutil.unpack_archive(sdist, self._work)
        self._display.end()
        return next(self._work.glob("llama_cpp_python-*/vendor/llama.cpp"))

    def build(self, source: Path, build: Path, flags: Sequence[str]) -> Path:
        """Configure and compile; the folder with the programs. Goes on where ``build`` was left."""
        cmake, ninja = self._tool("cmake"), self._tool("ninja")
        self._display.begin("llama-server and llama-batched-bench, built from source")
        self._display.update(0.0, "configuring")
        where = ["-S", str(source), "-B", str(build), f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        self._run([cmake, "-G", "Ninja", *where, *flags], lambda line: self._display.tick())

        def on_line(line: str) -> None:
            if counted := ninja_progress(line):
                done, total = counted
                self._display.update(done / total, f"{done} of {total} files")

        self._run([ninja, "-C", str(build), "-j", str(compile_jobs()), *PROGRAMS], on_line)
        self._display.end("kept for the next time")
        return build / "bin"

    def _tool(self, name: str) -> str:
        """Set-up leaves ninja in ``.venv``, and cmake where the system has none that will do."""
        found = self._python.parent / _file(name)
        if found.exists():
            return str(found)
        on_path = shutil.which(name)
        if on_path is not None and (name != "cmake" or toolchain.cmake_suffices()):
            return on_path
        lock = self._locks / ("cmake.txt" if name == "cmake" else "setup.txt")
        install = ("install", "--require-hashes", "--only-binary", ":all:", "-r", str(lock))
        self._run([str(self._python), "-m", "pip", *install], lambda line: None)
        return str(found)

    def _run(self, command: list[str], on_line: Callable[[str], None]) -> None:
        environment = clean_environment(self._venv, TMPDIR=str(self._work))
        run(command, log=self.log, env=environment, on_line=on_line, on_tick=self._display.tick)


def programs(root: Path, display: Display, *, cuda: bool) -> Path:
    """The folder of the programs; built first where they are not there. Raises Missing."""
    locks, venv = root / "packaging" / "locks", root / ".venv"
    variant = Stamp(venv).done("variant") or "portable"
    gcc = toolchain.cxx_is_gcc()
    made_by = recipe(locks / "llama.txt", variant, toolchain.compilers(), gcc=gcc)
    if cuda:
        made_by = replace(made_by, flags=(*made_by.flags, *CUDA))
    kept = Programs(cache_folder())
    if found := kept.find(made_by):
        return found
    toolchain.try_compilers()
    display.plan(2)
    kept.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Not in /tmp, which may be small or closed to programs.
    with tempfile.TemporaryDirectory(dir=kept.folder) as work:
        builder = Builder(locks, venv, Path(work), display)
        built = builder.build(builder.fetch(), Path(work, "build"), cmake_flags(made_by))
        return kept.keep(built, made_by)


def _file(name: str) -> str:
    return f"{name}{_SUFFIX}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Print the folder on standard output; progress and errors go to standard error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="for NVIDIA's GPUs")
    options = parser.parse_args()
    try:
        print(programs(Path(__file__).parents[1], Display(sys.stderr), cuda=options.cuda))
    except toolchain.Missing as missing:
        print(f"\n{missing}", file=sys.stderr)
        return 1
    except ChildFailed as failed:
        last = "\n".join(re.sub(r"\s+$", "", line) for line in failed.tail)
        print(f"\n{failed}. Its last lines:\n{last}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
