"""llama-cpp-python for this clone: taken from the user's cache, or fetched and built into it."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import toolchain
from children import clean_environment, run
from llama_wheel import Recipe, WheelCache, cache_folder, flags, ninja_progress, recipe
from pip_progress import PipProgress, requirements
from progress import Display
from stamp import digest

MEMORY_PER_JOB_BYTES = 1 << 30
_BUILD_SHARE = 0.98  # the rest is unpacking before and packing after


class LlamaBuild:
    """``look`` → ``make`` → ``install``. ``variant``: ``portable``, ``native``, ``everywhere``."""

    def __init__(
        self, locks: Path, venv: Path, python: Path, variant: str, display: Display
    ) -> None:
        self.variant = variant
        self.steps_before = 0
        self._lock = locks / "llama.txt"
        self._cmake_lock = locks / "cmake.txt"
        self._venv = venv
        self._python = python
        self._display = display
        self._log = venv / "setup.log"
        self._cache = WheelCache(cache_folder())
        self._recipe: Recipe | None = None
        self._wheel: Path | None = None
        self._needs_cmake = False

    def made_from(self) -> str:
        """What the stamp records; no look at the machine, so that a second run costs nothing."""
        chosen = json.dumps(flags(self.variant, gcc=True))
        return digest(self._lock.read_bytes(), self.variant, chosen)

    def look(self) -> None:
        """Is there a kept wheel? Else: has the machine what a build needs? Raises Missing."""
        compilers = toolchain.compilers()
        gcc = toolchain.cxx_is_gcc()
        self._recipe = recipe(self._lock, self.variant, compilers, gcc=gcc)
        self._wheel = self._cache.find(self._recipe)
        if self._wheel is None:
            toolchain.try_compilers()
            self._needs_cmake = not toolchain.cmake_suffices()
            self.steps_before = 3 if self._needs_cmake else 2

    def make(self) -> None:
        """Build the wheel, where there is none, and keep it."""
        if self._wheel is not None or self._recipe is None:
            return
        work = self._venv / "build"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            if self._needs_cmake:
                self._fetch_cmake()
            sdist = self._fetch(work)
            self._wheel = self._cache.keep(self._build(sdist, work), self._recipe)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def install(self) -> None:
        """Put the wheel into ``.venv``."""
        if self._wheel is None:
            raise RuntimeError("install comes after make")
        self._pip(
            *("install", "--no-deps", "--no-index", "--force-reinstall", str(self._wheel)),
        )

    def _fetch_cmake(self) -> None:
        self._display.begin("cmake (the system has none that is new enough)")
        self._pip("install", "--require-hashes", "--only-binary", ":all:", "-r", self._cmake_lock)
        self._display.end()

    def _fetch(self, work: Path) -> Path:
        self._display.begin("llama-cpp-python, source")
        self._pip(
            *("download", "--require-hashes", "--no-deps", "--no-build-isolation"),
            *("--progress-bar", "raw", "--no-binary", ":all:"),
            *("--dest", str(work), "-r", self._lock),
        )
        self._display.end()
        return next(work.glob("llama_cpp_python-*.tar.gz"))

    def _build(self, sdist: Path, work: Path) -> Path:
        if self._recipe is None:
            raise RuntimeError("build comes after look")
        self._display.begin("llama-cpp-python, built from source")
        self._display.update(0.0, "configuring")

        def on_line(line: str) -> None:
            if counted := ninja_progress(line):
                done, total = counted
                self._display.update(_BUILD_SHARE * done / total, f"{done} of {total} files")

        source = _unpack(sdist, work / "source")
        settings = [
            f"--config-settings=cmake.define.{each}" for each in self._recipe.definitions(work)
        ]
        command = [
            *(str(self._python), "-m", "pip", "wheel", str(source), "--no-deps", "--no-index"),
            *("--no-build-isolation", "--no-cache-dir", "--verbose", *settings),
            *("--wheel-dir", str(work / "wheel")),
        ]
        # The unpacked source takes hundreds of MB, and /tmp may be small or closed to programs.
        environment = clean_environment(
            self._venv,
            TMPDIR=str(work),
            CMAKE_BUILD_PARALLEL_LEVEL=str(compile_jobs()),
        )
        run(command, log=self._log, env=environment, on_line=on_line, on_tick=self._display.tick)
        self._display.end("kept for other clones")
        return next((work / "wheel").glob("*.whl"))

    def _pip(self, *arguments: str | Path) -> None:
        lock = next((a for a in arguments if isinstance(a, Path)), None)
        watcher = PipProgress(requirements(lock) if lock else 1)

        def show() -> None:
            self._display.update(watcher.fraction(), watcher.detail)

        def on_line(line: str) -> None:
            watcher.line(line)
            show()

        command = [str(self._python), "-m", "pip", *map(str, arguments)]
        environment = clean_environment(self._venv)
        run(command, log=self._log, env=environment, on_line=on_line, on_tick=show)


def _unpack(sdist: Path, into: Path) -> Path:
    """The folder with the source: pip would unpack it under a name that is another every time."""
    with tarfile.open(sdist) as archive:
        archive.extractall(into, filter="data")
    return next(into.iterdir())


def compile_jobs() -> int:
    """Compilers at a time: as many as processors that we may use, fewer where memory is short."""
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return processors
    return max(1, min(processors, memory // MEMORY_PER_JOB_BYTES))
