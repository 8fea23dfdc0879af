"""The files that belong to the project, as git would list them; also where git is not at hand."""

import ast
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("app", "plugins", "local_runtime")
_NOT_OURS = {"__pycache__", "build", "dist", "node_modules"}


@functools.cache
def files() -> tuple[Path, ...]:
    """Tracked files, and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        names = [ROOT / name for name in listed.stdout.split("\0") if name]
        return tuple(sorted(path for path in names if path.is_file()))
    return tuple(sorted(path for path in ROOT.rglob("*") if path.is_file() and _ours(path)))


def _ours(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    hidden = any(part.startswith(".") for part in parts[:1] if part != ".ci")
    return not hidden and _NOT_OURS.isdisjoint(parts)


def python_files(*folders: str) -> list[Path]:
    """Python files of the project, or of some of its top folders."""
    return [
        path
        for path in files()
        if path.suffix == ".py" and (not folders or path.relative_to(ROOT).parts[0] in folders)
    ]


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def short(path: Path) -> str:
    """The path as a person types it from the root, with forward slashes."""
    return path.relative_to(ROOT).as_posix()
