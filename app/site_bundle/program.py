"""A program to carry: what it is and what belongs to it, read out of it without running it.

``make binary`` makes it as one file (a small front, the gzip stream of a tar archive, and 24 bytes
that say where that is: ``packaging/front.c``), and as the archive of a folder. A folder, such as
the one that an installed server runs from, is made into such an archive again.
"""

import json
import os
import struct
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO, Any, BinaryIO

import msgspec

from app.installed import EDITION_FILE, is_frozen
from app.site_bundle.index import INSTALL, PROGRAM, CannotCarry
from local_runtime.store.bundle import Tell

_MAGIC = b"TURNPIKE"
_FOOTER = 24
_DOCUMENTS = (
    INSTALL, "turnpike.service", "turnpike.socket", "README.md", "config.example.toml", "LICENSE",
)  # fmt: skip
_INSIDE = {"_internal/LICENSES.txt": "LICENSES.txt", "_internal/sbom.cdx.json": "sbom.cdx.json"}
_FOLDERS = ("monitoring",)
_MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64"}  # ELF's e_machine
_MACS = {0x01000007: "x86_64", 0x0100000C: "arm64"}  # Mach-O's cputype
_HEAD = 64


class Carriable(msgspec.Struct, frozen=True, kw_only=True):
    """A program, and what goes with it. ``file`` holds its bytes; ``at_s`` is when it was made, in
    seconds since 1970; ``documents`` are by name.
    """

    file: BinaryIO
    form: str
    version: str
    edition: str
    system: str
    machine: str
    glibc_min: str | None
    unpacked_bytes: int
    at_s: int
    documents: dict[str, bytes]


class _Found:
    """What goes by while the archive is read."""

    def __init__(self) -> None:
        self.edition: dict[str, Any] = {}
        self.documents: dict[str, bytes] = {}
        self.head = b""
        self.bytes = 0
        self.at_s = 0


def own_program() -> Path:
    """The file or the folder that this process was started from. Raises CannotCarry."""
    if not is_frozen():
        raise CannotCarry(
            "This Turnpike runs from its source, which cannot be carried: `make binary` makes a"
            " program in dist/, and --program names it."
        )
    one_file = os.environ.get("TURNPIKE_FILE")
    return Path(one_file) if one_file else Path(os.path.realpath(sys.executable)).parent


@contextmanager
def carriable(path: Path, scratch: Path, tell: Tell) -> Iterator[Carriable]:
    """The program that ``path`` names: one file, an archive, or a folder.

    ``scratch`` is a folder where a folder's archive may lie meanwhile. Raises CannotCarry,
    OSError.
    """
    if path.is_dir():
        with tempfile.TemporaryFile(dir=scratch) as packed:
            pack_folder(path, packed, tell)
            yield _read(packed, path)
        return
    with path.open("rb") as file:
        yield _read(file, path)


def _read(file: IO[bytes], path: Path) -> Carriable:
    """Raises CannotCarry for what ``make binary`` did not make."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _FOOTER))
    footer = file.read(_FOOTER)
    one_file = footer.startswith(_MAGIC) and len(footer) == _FOOTER
    start, length = struct.unpack("<QQ", footer[8:]) if one_file else (0, size)
    file.seek(0)
    head = file.read(_HEAD)
    try:
        found = _contents(_Part(file, start, length), strip=not one_file)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _not_ours(path) from error
    if INSTALL not in found.documents or "version" not in found.edition:
        raise _not_ours(path)
    system, machine = platform_of(head if one_file else found.head)
    file.seek(0)
    glibc = found.edition.get("glibc_min")
    return Carriable(
        file=file,  # type: ignore[arg-type]
        form="file" if one_file else "folder",
        version=str(found.edition["version"]),
        edition=str(found.edition.get("edition", "unknown")),
        system=system,
        machine=machine,
        glibc_min=str(glibc) if glibc is not None and system == "linux" else None,
        unpacked_bytes=size if one_file else found.bytes,
        at_s=found.at_s,
        documents=found.documents,
    )


def _contents(stream: "_Part", *, strip: bool) -> _Found:
    """``strip``: everything lies in one folder."""
    found = _Found()
    with tarfile.open(fileobj=stream, mode="r|gz") as archive:
        for member in archive:
            name = member.name.partition("/")[2] if strip else member.name
            found.at_s = max(found.at_s, int(member.mtime))
            if not member.isreg():
                continue
            found.bytes += member.size
            file = archive.extractfile(member)
            if file is None:
                continue
            if name == PROGRAM:
                found.head = file.read(_HEAD)
            elif name == f"_internal/{EDITION_FILE}":
                found.edition = json.loads(file.read())
            elif name in _DOCUMENTS or name in _INSIDE or name.split("/")[0] in _FOLDERS:
                found.documents[_INSIDE.get(name, name)] = file.read()
    return found


def platform_of(head: bytes) -> tuple[str, str]:
    """System and machine of an executable, by its first bytes (ELF, Mach-O); "any" for a script."""
    if head[:4] == b"\x7fELF":
        (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
        return "linux", _MACHINES.get(machine, f"elf-{machine}")
    if head[:4] == b"\xcf\xfa\xed\xfe":
        (machine,) = struct.unpack_from("<I", head, 4)
        return "darwin", _MACS.get(machine, f"mach-o-{machine}")
    if head[:2] == b"#!":
        return "any", "any"
    raise CannotCarry("What it holds is no program of a kind that is known here.")


def pack_folder(folder: Path, into: IO[bytes], tell: Tell) -> None:
    """A folder as ``make binary`` packs it, which depends on nothing but the folder."""
    if not (folder / PROGRAM).is_file() or not (folder / "_internal" / EDITION_FILE).is_file():
        raise _not_ours(folder)
    edition = json.loads((folder / "_internal" / EDITION_FILE).read_text(encoding="utf-8"))
    when = int((folder / PROGRAM).stat().st_mtime)
    paths = sorted(folder.rglob("*"), key=lambda each: each.relative_to(folder).parts)
    total = sum(each.lstat().st_size for each in paths)
    squeezed, done = _Squeezed(into), 0
    with tarfile.open(fileobj=squeezed, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for path in paths:
            name = f"turnpike-{edition.get('version')}/{path.relative_to(folder).as_posix()}"
            member = archive.gettarinfo(path, name)
            if member.islnk():
                member.type, member.size = tarfile.REGTYPE, path.stat().st_size
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = when
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            if member.isreg():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)
            done += path.lstat().st_size
            tell("packing the program", done, total)
    squeezed.finish()


class _Squeezed(RawIOBase):
    """Writes gzip without a time or a name."""

    def __init__(self, into: IO[bytes]) -> None:
        self._into = into
        self._squeeze = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._into.write(self._squeeze.compress(data))
        return len(data)

    def finish(self) -> None:
        """The rest of the stream."""
        self._into.write(self._squeeze.flush())


class _Part(RawIOBase):
    """Some bytes of a file as a file."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file = file
        self._left = length
        file.seek(start)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _not_ours(path: Path) -> CannotCarry:
    return CannotCarry(
        f"{path} is not a program that `make binary` made: name the one file, the .tar.gz, or its"
        " unpacked folder."
    )
