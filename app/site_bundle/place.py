"""Where a bundle's content goes: this machine's own folders, a tree for an image, or a home."""

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from app.config import Config, load, parse
from app.config_carried import Carried, CarriedDamaged, overlaid, read_carried
from app.config_survey import survey_file
from app.site_bundle.index import CannotCarry, Program
from app.site_bundle.program import platform_of

PROGRAM_MARK = "bundle-program.sha256"
"""Beside an installed program: the SHA-256 of the part that it came from."""
_BUILD = re.compile(r"-[0-9a-f]{8}$")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """``lib`` has a folder for each version, and the link ``current``. ``options`` are those of
    the shipped ``install``; None where it is not asked, for it makes a service.
    """

    lib: Path
    bin: Path
    config_file: Path | None
    data_dir_given: str | None
    config: Config
    options: list[str] | None

    @property
    def data_dir(self) -> Path:
        return self.config.data_dir()

    def with_terms(self, carried: Carried) -> Config:
        """The configuration as it will be. Raises ConfigError."""
        raw: dict[str, Any] = {}
        if self.config_file is not None:
            raw = tomllib.loads(self.config_file.read_text(encoding="utf-8-sig"))
        merged, _ = overlaid(raw, carried)
        source = str(self.config_file or "defaults")
        return parse(merged, source=source, data_dir=self.data_dir_given)

    def carried(self) -> Carried | None:
        """What was taken in before; None as well where that is damaged. Raises ConfigError."""
        try:
            return read_carried(self.data_dir)
        except CarriedDamaged:
            return None

    def installed(self) -> str | None:
        """The version in use."""
        link = self.lib / "current"
        return _BUILD.sub("", link.readlink().name) if link.is_symlink() else None

    def has(self, digest: str) -> bool:
        """Whether the program in use is that of the bundle."""
        try:
            found = (self.lib / "current" / PROGRAM_MARK).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return False
        return found.strip() == digest and (self.lib / "current" / "turnpike").is_file()


def system_place(
    config_file: Path | None, data_dir: str | None, root: Path | None, prefix: str
) -> Place:
    """This machine's own folders, or the same under ``root``. Raises ConfigError, CannotCarry."""
    if not prefix.startswith("/"):
        raise CannotCarry("--prefix must begin with /")
    top = Path("/") if root is None else root.absolute()
    if config_file is None:
        usual = top / "etc/turnpike/config.toml"
        config_file = usual if usual.is_file() else None
        data_dir = data_dir or str(top / "var/lib/turnpike")
    config = _lenient(config_file, data_dir)
    folder = config.local.models_folder
    if root is not None and folder is not None and Path(folder).is_absolute():
        local = msgspec.structs.replace(config.local, models_folder=str(top / folder.lstrip("/")))
        config = msgspec.structs.replace(config, local=local)
    options = ["--prefix", prefix] + ([] if root is None else ["--root", str(top)])
    base = top / prefix.lstrip("/")
    return Place(
        lib=base / "lib/turnpike",
        bin=base / "bin",
        config_file=config_file,
        data_dir_given=data_dir,
        config=config,
        options=options,
    )


def home_place(config_file: Path | None, data_dir: str | None) -> Place:
    """The folders of whoever calls. Raises ConfigError, CannotCarry."""
    try:
        local = Path.home() / ".local"
    except RuntimeError as error:
        raise CannotCarry("This user has no home: set HOME, or call it as root.") from error
    return Place(
        lib=local / "lib/turnpike",
        bin=local / "bin",
        config_file=config_file,
        data_dir_given=data_dir,
        config=_lenient(config_file, data_dir),
        options=None,
    )


def _lenient(config_file: Path | None, data_dir: str | None) -> Config:
    """A configuration may wait for just the prices that the bundle brings."""
    found = survey_file(config_file, data_dir).config
    return load(config_file, data_dir) if found is None else found


def check_platform(program: Program) -> None:
    """Raises CannotCarry where the program does not run on this machine."""
    with Path(sys.executable).open("rb") as file:
        system, machine = platform_of(file.read(64))
    if program.system not in {system, "any"} or program.machine not in {machine, "any"}:
        raise CannotCarry(
            f"The program in it is for {program.system} on {program.machine}; this is {system} on"
            f" {machine}. Make a bundle with a program for this machine (--program), or take in the"
            " models and prices only (--models-only)."
        )
    if program.glibc_min is None:
        return
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        told = ""
    here = told.removeprefix("glibc ")
    if not here or numbers(here) < numbers(program.glibc_min):
        raise CannotCarry(
            f"The program in it needs glibc {program.glibc_min} or newer, and this system has"
            f" {here or 'none'}: it takes a newer release of the system."
        )


def numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version, to compare."""
    return tuple(int(each) for each in re.findall(r"\d+", version)[:3])


def nearest(path: Path) -> Path:
    """The innermost folder around it that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.is_dir())


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """What is written meanwhile belongs to the folder's owner, the service's user, not to root.

    Nothing may be imported for the first time meanwhile: the program itself may lie where only root
    may look.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or folder.stat().st_uid == 0:
        yield
        return
    found = folder.stat()
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
