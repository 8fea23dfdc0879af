"""Plugins that are single ``.py`` files in a folder.

A file is run only if the configuration lists it with the SHA-256 of its bytes, and the bytes that
are hashed are those that are run: they are read once and compiled from memory. So nobody who can
write into the folder can run anything here, and an approved file that was changed is refused. The
file, and the folder, must not be writable by other accounts all the same: they would be able to
take the server down.

A plugin runs with all rights of the server. Nothing here makes it harmless.

The module is registered as ``turnpike_plugin_<file's name>``; it is one file and imports
``plugins.*``, msgspec and the standard library, so that it works in the single binary too.
"""

import hashlib
import logging
import os
import stat
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from plugins.contract import Plugin
from plugins.vetting import PluginRefused, said, vet

FILE_BYTES_MAX = 1024 * 1024
NAMED_MAX = 20
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
# Neither exists on Windows; there, a link is noticed by its own look.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a named pipe would wait for its writer
_BINARY = getattr(os, "O_BINARY", 0)
_DIGEST = "__turnpike_digest__"

log = logging.getLogger("turnpike.plugins")


@dataclass(frozen=True, slots=True)
class FolderFile:
    """One ``.py`` file of the folder. ``digest`` is as the configuration writes it, empty where the
    file cannot be read; ``problem`` says why it cannot be run, empty where it can."""

    name: str
    digest: str
    allowed: bool
    problem: str


def load(folder: Path, allow: Mapping[str, str]) -> dict[str, Plugin]:
    """The plugins of the folder's allowed files, by file name. Files that are not allowed are not
    run, and named in one line of the log. Raises PluginRefused for an allowed one that cannot be
    used.
    """
    _check_folder(folder)
    unlisted = [name for name in _names(folder) if name not in allow]
    if unlisted:
        log.warning(
            "plugin files not run, as plugins.allow does not list them: %s "
            "(turnpike plugins list shows their hashes)",
            _few(unlisted),
        )
    return {name: load_file(folder, name, allow[name]) for name in sorted(allow)}


def load_file(folder: Path, name: str, approved: str) -> Plugin:
    """The plugin of one file, if its bytes have the ``approved`` hash. Raises PluginRefused."""
    path = folder / name
    source = _read(path, guarded=True)
    digest = digest_of(source)
    if digest != approved.lower():
        raise PluginRefused(
            f"plugin file {path}: changed since it was allowed; its hash is {digest} now, "
            f"plugins.allow says {approved}; read the file, then put the new hash there"
        )
    return _run(source, path, digest)


def survey(folder: Path, allow: Mapping[str, str]) -> list[FolderFile]:
    """All ``.py`` files of the folder, and those that are allowed but not there; nothing is run.
    Raises PluginRefused for a folder that cannot be used.
    """
    _check_folder(folder)
    return [_look(folder, name, allow) for name in sorted({*_names(folder), *allow})]


def run_file(path: Path) -> Plugin:
    """The plugin of a file that the person at the keyboard names. Raises PluginRefused."""
    source = _read(path, guarded=False)
    return _run(source, path, digest_of(source))


def digest_of(source: bytes) -> str:
    """What ``plugins.allow`` says of a file with these bytes."""
    return f"sha256:{hashlib.sha256(source).hexdigest()}"


def _look(folder: Path, name: str, allow: Mapping[str, str]) -> FolderFile:
    try:
        digest = digest_of(_read(folder / name, guarded=True))
    except PluginRefused as error:
        return FolderFile(name, "", name in allow, str(error))
    if name not in allow:
        return FolderFile(name, digest, False, "")
    changed = digest != allow[name].lower()
    return FolderFile(name, digest, not changed, "changed since it was allowed" if changed else "")


def _names(folder: Path) -> list[str]:
    with _told(f"plugins.folder {folder}"):
        return sorted(each.name for each in folder.iterdir() if each.suffix == ".py")


def _few(names: list[str]) -> str:
    """Names fit for a line of the log: a file's name may hold anything."""
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:NAMED_MAX])
    more = len(names) - NAMED_MAX
    return f"{shown} and {more} more" if more > 0 else shown


def _check_folder(folder: Path) -> None:
    with _told(f"plugins.folder {folder}"):
        found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise PluginRefused(f"plugins.folder {folder}: not a folder")
    _check_writers(f"plugins.folder {folder}", found.st_mode, folder)


def _check_writers(what: str, mode: int, path: Path) -> None:
    if os.name == "posix" and mode & _WRITABLE_BY_OTHERS:
        raise PluginRefused(f"{what}: other accounts can write to it; chmod go-w {path}")


def _read(path: Path, *, guarded: bool) -> bytes:
    """The bytes of a regular file, read once. ``guarded``: neither through a link nor where other
    accounts can write. Raises PluginRefused.
    """
    what = f"plugin file {path}"
    if guarded and path.is_symlink():
        raise PluginRefused(f"{what}: a link; put the file itself there")
    flags = os.O_RDONLY | _NO_WAIT | _BINARY | (_NO_LINK if guarded else 0)
    with _told(what), os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise PluginRefused(f"{what}: not a regular file")
        if guarded:
            _check_writers(what, found.st_mode, path)
        source = file.read(FILE_BYTES_MAX + 1)
    if len(source) > FILE_BYTES_MAX:
        raise PluginRefused(
            f"{what}: larger than {FILE_BYTES_MAX} bytes; make it an installed package"
        )
    return source


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise PluginRefused(f"{what}: not there; put it there, or take it out") from error
    except OSError as error:
        raise PluginRefused(f"{what}: cannot be read: {error.strerror or error}") from error


def _run(source: bytes, path: Path, digest: str) -> Plugin:
    """Run the module and take its PLUGIN; one that runs already, from the same bytes, is kept, so
    that a reload leaves the providers of an unchanged file alone.
    """
    what = f"plugin file {path}"
    name = f"turnpike_plugin_{path.stem}"
    before = sys.modules.get(name)
    if before is not None and (before.__file__, vars(before).get(_DIGEST)) == (str(path), digest):
        return vet(vars(before).get("PLUGIN"), what, "change it to this one")
    module = ModuleType(name)
    module.__file__ = str(path)
    vars(module)[_DIGEST] = digest
    # Registered first: msgspec and dataclasses look up a class's module by its name.
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102
        if "PLUGIN" not in vars(module):
            raise PluginRefused(f"{what}: has no PLUGIN; end it with PLUGIN = Plugin(...)")
        return vet(vars(module)["PLUGIN"], what, "change it to this one, or get it anew")
    except BaseException as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        # sys.exit() in a plugin must not end the server in silence.
        if isinstance(error, PluginRefused) or not isinstance(error, Exception | SystemExit):
            raise
        raise PluginRefused(f"{what}: {_line(error, path)}{said(error)}; mend the file") from error


def _line(error: BaseException, path: Path) -> str:
    """Where in the file it went wrong, as far as that is known."""
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""
