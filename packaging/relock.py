"""``make lock``: the lock files anew from pyproject.toml, with hashes, for every platform."""

import tomllib
from pathlib import Path

from children import clean_environment, run
from progress import Display

COOL_OFF = "7 days"
"""Releases younger than this are not taken: most poisoned ones are found within hours."""

# The runtime lock first: dev must agree with it. llama-cpp-python has a lock of its own, because
# it alone is built here, with flags.
LOCKS: dict[str, list[str]] = {
    "setup": ["--group", "setup"],
    "cmake": ["--group", "cmake"],
    "starter": ["--group", "starter", "--no-deps"],
    "samples": ["--group", "samples", "--no-deps"],
    "locking": ["--group", "locking"],
    "binary": ["--group", "binary"],
    "runtime": ["pyproject.toml", "--no-emit-package", "llama-cpp-python"],
    "torch": ["--group", "torch", "--constraint", "packaging/locks/runtime.txt"],
    "dev": [
        *("pyproject.toml", "--extra", "dev", "--no-emit-package", "llama-cpp-python"),
        *("--constraint", "packaging/locks/runtime.txt"),
    ],
}
LLAMA = "llama-cpp-python"


def relock(root: Path, venv: Path, display: Display) -> None:
    """Rewrite ``packaging/locks``. Pins that still fit stay; remove a file to renew all of it."""
    folder = root / "packaging" / "locks"
    log = venv / "setup.log"
    uv = str(venv / "bin" / "uv")
    common = [
        *("--universal", "--generate-hashes", "--python-version", "3.11", "--quiet"),
        *("--exclude-newer", COOL_OFF, "--custom-compile-command", "make lock"),
        *("--no-emit-package", "turnpike"),
    ]
    display.plan(len(LOCKS) + 1)

    def compile_lock(name: str, arguments: list[str]) -> None:
        display.begin(f"locks/{name}.txt")
        command = [uv, "pip", "compile", *common, *arguments, "-o", str(folder / f"{name}.txt")]
        environment = clean_environment(venv)
        run(
            command,
            log=log,
            env=environment,
            on_line=lambda _: None,
            on_tick=display.tick,
            cwd=root,
        )
        display.end()

    for name, arguments in LOCKS.items():
        compile_lock(name, arguments)
    pin = next(line for line in _dependencies(root) if line.startswith(f"{LLAMA}=="))
    wanted = venv / "llama.in"
    wanted.write_text(f"{pin}\n", encoding="utf-8")
    compile_lock("llama", [str(wanted), "--no-deps", "--no-annotate", "--no-binary", LLAMA])


def _dependencies(root: Path) -> list[str]:
    with (root / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return [str(line) for line in project["dependencies"]]
