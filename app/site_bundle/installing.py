"""Puts the program of a bundle into place: by the shipped ``install``, or into a home.

Everything is unpacked beside the place first, and comes into it by one rename of a link.
"""

import gzip
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import IO

from app.site_bundle.index import CARRIED, INSTALL, PROGRAM, CannotCarry
from app.site_bundle.place import PROGRAM_MARK, Place, nearest
from app.site_bundle.reading import SiteBundle
from local_runtime.store.blobs import sync_folder
from local_runtime.store.bundle import BundleRefused

STAGE = ".turnpike-bundle"
_SLACK = 64 << 20  # what an archive has beside its files' content
_NOT_FOR_TOOLS = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "PYTHONPATH")

Say = Callable[[str], None]
_SYSTEMD = Path("/run/systemd/system")


def remove_stages(place: Place) -> None:
    """What this call, or an earlier one that was killed, left of what it unpacked and copied.

    Which folders were there then, nobody knows now.
    """
    for folder in (place.lib, *place.lib.parents):
        path = folder / STAGE
        if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)
    for path in place.lib.glob(".new.*"):  # of ``install``
        shutil.rmtree(path, ignore_errors=True)


def stage(bundle: SiteBundle, place: Place) -> Path:
    """Unpack the program and what belongs to it, on the disk of the place.

    Raises BundleRefused, OSError.
    """
    remove_stages(place)
    folder = nearest(place.lib) / STAGE
    folder.mkdir(mode=0o755)
    program = bundle.index.program
    sums = []
    if program.form == "folder":
        part = bundle.index.part(program.part)
        with (folder / part.name).open("w+b") as packed:
            bundle.copy(part, packed)
            packed.seek(0)
            unpack(packed, folder, program.unpacked_bytes)
        (folder / part.name).unlink()
    for part in bundle.index.parts:
        if part.name == CARRIED or (part.name == program.part and program.form == "folder"):
            continue
        path = folder / part.name
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            bundle.copy(part, file)
        path.chmod(0o755 if part.executable else 0o644)
        sums.append(f"{part.sha256}  {part.name}\n")
    if not (folder / PROGRAM).is_file():
        raise BundleRefused("the archive of the program in it holds no program")
    (folder / "SHA256SUMS").write_text("".join(sums), encoding="ascii")
    mark = bundle.index.part(program.part).sha256
    (folder / PROGRAM_MARK).write_text(mark + "\n", encoding="ascii")
    if hasattr(os, "sync"):
        os.sync()  # what is copied from here is copied by tools that do not care
    return folder


def unpack(packed: IO[bytes], into: Path, size: int) -> None:
    """The archive of a folder, whose files take ``size`` bytes, without the folder's own name.

    Raises BundleRefused for what holds more or less, or reaches out of the folder.
    """
    held = 0
    try:
        with (
            gzip.GzipFile(fileobj=packed, mode="rb") as plain,
            tarfile.open(fileobj=_Bounded(plain, size + _SLACK), mode="r|") as archive,
        ):
            for member in archive:
                name = member.name.partition("/")[2]
                held += member.size if member.isreg() else 0
                if held > size:
                    raise BundleRefused("the archive of the program holds more than it says")
                if not name:
                    continue
                wanted = tarfile.data_filter(member.replace(name=name, deep=False), str(into))
                archive.extract(wanted, into, filter="data")
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise BundleRefused(f"the archive of the program in it is refused: {error}") from error
    if held != size:
        raise BundleRefused("the archive of the program holds less than it says")


class _Bounded(RawIOBase):
    """So many bytes of a stream, and a refusal for the next."""

    def __init__(self, stream: gzip.GzipFile, left: int) -> None:
        self._stream = stream
        self._left = left

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise BundleRefused("the archive of the program holds more than it says")
        return data


def starts_service(place: Place) -> bool:
    """Whether ``install`` starts or restarts the server there."""
    return place.options is not None and "--root" not in place.options and _SYSTEMD.is_dir()


def run_install(place: Place, folder: Path, version: str, say: Say, *more: str) -> None:
    """The shipped script, with what was unpacked. Raises CannotCarry when it fails."""
    command = ["sh", str(folder / INSTALL), *(place.options or []), "--version", version, *more]
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("TURNPIKE_") and key not in _NOT_FOR_TOOLS
    }
    kept["PATH"] = ":".join(filter(None, [kept.get("PATH"), "/usr/sbin:/usr/bin:/sbin:/bin"]))
    try:
        done = subprocess.run(  # noqa: S603  # what was signed, and compared with its hash
            [*command, str(folder)],
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise CannotCarry(
            "This system has no shell, which `install` needs: --home puts the program into the"
            " folders of whoever calls, without a service."
        ) from error
    lines = done.stdout.splitlines()
    for line in lines:
        say(line)
    if hasattr(os, "sync"):
        os.sync()  # `cp` leaves it to the system when it is written
    if done.returncode != 0:
        told = lines[-1].removeprefix("install: ") if lines else "it said nothing"
        raise CannotCarry(f"The program was not installed: {told}")


def check_home(place: Place) -> None:
    """Raises CannotCarry where something else has the program's name."""
    link = place.bin / PROGRAM
    if (link.exists() or link.is_symlink()) and not (
        link.is_symlink() and link.readlink().parts[-4:-1] == ("lib", "turnpike", "current")
    ):
        raise CannotCarry(f"{link} is there and was not made by Turnpike: move it away first.")


def install_in_home(place: Place, folder: Path, version: str, say: Say) -> None:
    """As ``install`` does it, without a service and without a shell."""
    name = version
    if (place.lib / name).exists():
        name = f"{version}-{(folder / PROGRAM_MARK).read_text(encoding='ascii')[:8]}"
    mark = (folder / PROGRAM_MARK).read_bytes()
    for each in (version, name):  # one of them, where a call was broken off
        there = place.lib / each / PROGRAM_MARK
        if there.is_file() and there.read_bytes() == mark:
            name = each
    place.lib.mkdir(parents=True, exist_ok=True)
    place.bin.mkdir(parents=True, exist_ok=True)
    if not (place.lib / name / PROGRAM_MARK).is_file():
        shutil.rmtree(place.lib / name, ignore_errors=True)
        folder.rename(place.lib / name)
        say(f"copies the program to {place.lib / name}")
    current = place.lib / "current"
    old = current.readlink().name if current.is_symlink() else None
    if old not in {None, name}:
        _link(place.lib / "previous", str(old))
    _link(current, name)
    _link(place.bin / PROGRAM, str(Path(os.path.relpath(place.lib, place.bin), "current", PROGRAM)))
    say(f"links {place.bin / PROGRAM}")
    kept = {name, old} if old != name else {name}
    previous = place.lib / "previous"
    if previous.is_symlink():
        kept.add(previous.readlink().name)
    for path in place.lib.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _link(path: Path, target: str) -> None:
    if path.is_symlink() and str(path.readlink()) == target:
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(path)
    sync_folder(path.parent)
