"""What is built from llama.cpp's own source by cmake, beside the wheel: fetched, built, kept.

The source is the one in llama-cpp-python's sdist that ``locks/llama.txt`` pins, the flags and
compilers are those of the wheel, so that all parts fit together.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import toolchain
from children import clean_environment, run
from kept import Kept
from llama_build import compile_jobs
from llama_wheel import Recipe, ninja_progress
from pip_progress import PipProgress
from progress import Display
from stamp import sha256

# What the wheel's own build leaves out too, and what a server without a browser does not need.
WITHOUT = (
    "LLAMA_BUILD_APP", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_UI",
    "LLAMA_OPENSSL", "LLAMA_USE_PREBUILT_UI",
)  # fmt: skip


def cmake_flags(made_by: Recipe, work: Path) -> list[str]:
    """For cmake itself, with what a wheel would be built with in ``work``."""
    # Next to each other in one folder, programs and libraries can be moved there when done.
    origin = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
    return [
        f"-D{setting}"
        for setting in (
            *("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=ON", *made_by.definitions(work)),
            *("CMAKE_BUILD_WITH_INSTALL_RPATH=ON", f"CMAKE_INSTALL_RPATH={origin}"),
            *(f"{name}=OFF" for name in WITHOUT),
        )
    ]


class KeptFiles:
    """Finished files by recipe: ``llama.cpp/KEY/`` beside a note with the SHA-256 of ``names``."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder / "llama.cpp"
        self._kept = Kept(self.folder, "programs.json")
        self._names = tuple(names)

    def find(self, made_by: Recipe) -> Path | None:
        """Their folder, if all are there whole; a damaged one is removed."""
        found = self._kept.find(
            made_by.key(), lambda note: {name: note["sha256"][name] for name in self._names}
        )
        return found and found[0]

    def keep(self, built: Path, made_by: Recipe) -> Path:
        """Copy the folder with what was built in, seen by readers all at once."""

        def fill(entry: Path) -> dict[str, object]:
            shutil.copytree(built, entry, symlinks=True)
            digests = {name: sha256(entry / name) for name in self._names}
            return {"sha256": digests, "recipe": made_by.__dict__}

        return self._kept.keep(made_by.key(), fill)


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

    def build(
        self, what: str, source: Path, build: Path, flags: Sequence[str], targets: Sequence[str]
    ) -> Path:
        """Configure and compile; the folder with what was built. Goes on where ``build`` was left.

        ``what`` is for people, ``targets`` are cmake's names of what is wanted.
        """
        cmake, ninja = self._tool("cmake"), self._tool("ninja")
        self._display.begin(f"{what}, built from source")
        self._display.update(0.0, "configuring")
        where = ["-S", str(source), "-B", str(build), f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        self._run([cmake, "-G", "Ninja", *where, *flags], lambda line: self._display.tick())

        most = 0  # builds within the build count their own files

        def on_line(line: str) -> None:
            nonlocal most
            counted = ninja_progress(line)
            if counted is not None and counted[1] >= most:
                done, most = counted
                self._display.update(done / most, f"{done} of {most} files")

        self._run([ninja, "-C", str(build), "-j", str(compile_jobs()), *targets], on_line)
        self._display.end("kept for the next time")
        return build / "bin"

    def _tool(self, name: str) -> str:
        """Set-up leaves ninja in ``.venv``, and cmake where the system has none that will do."""
        found = self._python.parent / file_name(name)
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


def file_name(program: str) -> str:
    """What a program is called here."""
    return f"{program}.exe" if os.name == "nt" else program
