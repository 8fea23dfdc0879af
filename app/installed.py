"""Which versions of everything are at work, found out without loading any of it.

A frozen program has a file ``turnpike-edition.json`` in its bundle: ``edition``; ``llama_cpp``, its
version; ``distributions``, versions by name, where the bundle has no packages' own files; and what
else its build wants to be known.
"""

import json
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import msgspec

from app.storage.engine import sqlite_version
from app.version import VERSION
from local_runtime.engines.llama.libraries import library_folder

EDITION_FILE = "turnpike-edition.json"
_PROGRAM = "turnpike"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""\bextra\s*==\s*["']([^"']+)""")
_LIBRARY = re.compile(r"lib(llama|ggml)\.(?:so\.(\d+(?:\.\d+){2})|(\d+(?:\.\d+){2})\.dylib)")
_EXTRAS = frozenset({"torch", "postgres", "ray"})  # ours that are for serving; told if installed


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """``edition`` is "source", or what the frozen program calls itself; ``build`` is what else its
    file says. ``distributions`` are the installed packages that Turnpike stands on, by name.
    """

    turnpike: str
    edition: str
    frozen: bool
    python: str
    sqlite: str
    llama_cpp_python: str | None
    llama_cpp: str | None
    litestar: str | None
    uvicorn: str | None
    msgspec: str | None
    platform: str
    glibc: str | None
    distributions: dict[str, str]
    build: dict[str, Any] = {}


def versions() -> Versions:
    """All of them."""
    build = edition_file()
    found = distributions() or _texts(build.get("distributions"))
    libc, libc_version = platform.libc_ver()
    return Versions(
        turnpike=VERSION,
        edition=str(build.get("edition", "frozen" if is_frozen() else "source")),
        frozen=is_frozen(),
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        sqlite=sqlite_version(),
        llama_cpp_python=found.get("llama-cpp-python"),
        llama_cpp=_text(build.get("llama_cpp")) or library_versions(),
        litestar=found.get("litestar"),
        uvicorn=found.get("uvicorn"),
        msgspec=found.get("msgspec"),
        platform=platform.platform(),
        glibc=libc_version if libc == "glibc" else None,
        distributions=found,
        build={
            key: value for key, value in build.items() if key not in {"edition", "distributions"}
        },
    )


def is_frozen() -> bool:
    """Whether this is the one-file program."""
    return bool(getattr(sys, "frozen", False))


def edition_file(folder: Path | None = None) -> dict[str, Any]:
    """What the build wrote down; nothing where it is not frozen, or wrote nothing."""
    if folder is None:
        bundle = getattr(sys, "_MEIPASS", None)
        if not is_frozen() or bundle is None:
            return {}
        folder = Path(bundle)
    try:
        found = json.loads((folder / EDITION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def distributions() -> dict[str, str]:
    """Name and version of what Turnpike needs, and what that needs, as far as it is installed."""
    found: dict[str, str] = {}
    waiting = [_PROGRAM]
    while waiting:
        name = _normal(waiting.pop())
        if name in found:
            continue
        try:
            one = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform, or an extra that is not wanted
        found[name] = one.version
        waiting += _needs(one.requires or [], _EXTRAS if name == _PROGRAM else frozenset())
    found.pop(_PROGRAM, None)
    return dict(sorted(found.items()))


def _needs(requirements: list[str], extras: frozenset[str]) -> list[str]:
    """The names in requirements (PEP 508), those of other extras left out."""
    found = []
    for each in requirements:
        name, extra = _NAME.match(each), _EXTRA.search(each)
        if name is not None and (extra is None or extra[1] in extras):
            found.append(name[0])
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def library_versions(folder: Path | None = None) -> str | None:
    """What the names of llama.cpp's libraries say, as ``llama 0.5.0, ggml 0.25.3``; None where they
    say nothing, or are not there.
    """
    folder = folder or library_folder()
    found = {}
    for path in folder.iterdir() if folder is not None and folder.is_dir() else ():
        match = _LIBRARY.fullmatch(path.name)
        if match is not None:
            found[match[1]] = match[2] or match[3]
    return ", ".join(f"{name} {found[name]}" for name in sorted(found, reverse=True)) or None


def _texts(value: object) -> dict[str, str]:
    """A bundle need not hold what packages were installed from; then its file lists them."""
    if not isinstance(value, dict):
        return {}
    return {_normal(str(name)): str(version) for name, version in sorted(value.items())}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
