"""What is in a site's bundle, and where: the signed list that the file begins with.

The file is an ordinary tar archive, so that the program can be taken out of it with ``tar`` where
nothing else is yet: ``bundle.json`` (this list), ``bundle.sig`` (over its bytes), the program, what
belongs to it, ``carried.json`` and the models' blobs. Nothing else may be in it, and its bytes
follow from the list alone, so that there is no byte whose change would go unnoticed.
"""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from app.errors import TurnpikeError
from local_runtime.store.blobs import DIGEST
from local_runtime.store.bundle import BundleRefused, blob_name, blobs_of
from local_runtime.store.catalog import Manifest, check_manifest
from local_runtime.store.names import NameRefused
from local_runtime.store.tar import BLOCK, end, header, padded

FORMAT = 1
INDEX, SIGNATURE = "bundle.json", "bundle.sig"
CARRIED = "carried.json"
INSTALL = "install"
PROGRAM = "turnpike"
SMALL_BYTES_MAX = 16 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}(/[A-Za-z0-9][A-Za-z0-9._+-]{0,79})?")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+_-]{0,63}")
_KEPT = frozenset({INDEX, SIGNATURE, "blobs"})


class CannotCarry(TurnpikeError):
    """A bundle cannot be made, or its content cannot be installed here; the text says why."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that is not a model's."""

    name: str
    bytes: int
    sha256: str
    executable: bool = False


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which part is the program, and what it runs on.

    ``form`` is "file", the program in one file, or "folder", the archive (.tar.gz) of a folder.
    ``unpacked_bytes`` is what its files take together. ``system`` and ``machine`` are as the
    binary's own header says them; ``glibc_min`` is None where it needs none.
    """

    part: str
    form: Literal["file", "folder"]
    version: str
    edition: str
    system: str
    machine: str
    glibc_min: str | None
    unpacked_bytes: int


class SiteIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``bundle.json``. ``at_ms``: when the newest thing in it was made, since 1970."""

    format: int = FORMAT
    content: Literal["site"] = "site"
    at_ms: int
    program: Program
    parts: list[Part]
    models: list[Manifest]

    def part(self, name: str) -> Part:
        """One of them, which must be there."""
        return next(each for each in self.parts if each.name == name)

    def members(self) -> Iterator[Part]:
        """Everything behind the list and its signature, in the order of the file."""
        yield from self.parts
        for digest, size in blobs_of(self.models).items():
            yield Part(blob_name(digest), size, digest)

    def header_of(self, part: Part) -> bytes:
        """The block before a member."""
        mode = 0o755 if part.executable else 0o644
        return header(part.name, part.bytes, mode=mode, at_s=self.at_ms // 1000)

    def head(self, data: bytes, signature: bytes) -> bytes:
        """How the file begins: this list as ``data``, and the signature over it."""
        found = b""
        for name, content in ((INDEX, data), (SIGNATURE, signature)):
            found += header(name, len(content), mode=0o644, at_s=self.at_ms // 1000)
            found += content + bytes(padded(len(content)) - len(content))
        return found

    def tail(self, head_bytes: int) -> bytes:
        """How the file ends."""
        return end(head_bytes + self._members_bytes())

    def file_bytes(self, head_bytes: int) -> int:
        """How long the file is."""
        return head_bytes + self._members_bytes() + len(self.tail(head_bytes))

    def _members_bytes(self) -> int:
        return sum(BLOCK + padded(each.bytes) for each in self.members())


def decode_index(data: bytes) -> SiteIndex:
    """The list, with everything in it checked that it says of itself. Raises BundleRefused."""
    try:
        index = msgspec.json.decode(data, type=SiteIndex)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleRefused(_other_kind(data, error)) from error
    if index.format != FORMAT:
        raise BundleRefused(
            "it was made by a newer Turnpike: take the program out of"
            " it with tar, and apply it with that"
        )
    _check_parts(index.parts)
    names = {each.name for each in index.parts}
    if not {index.program.part, INSTALL, CARRIED} <= names:
        raise BundleRefused("it lacks the program, its `install`, or the price book")
    if not _VERSION.fullmatch(index.program.version) or index.program.unpacked_bytes < 0:
        raise BundleRefused("it does not say which version it holds")
    if index.at_ms < 0 or index.part(CARRIED).bytes > SMALL_BYTES_MAX:
        raise BundleRefused("its time, or the size of its price book, is impossible")
    try:
        for manifest in index.models:
            check_manifest(manifest)
    except NameRefused as error:
        raise BundleRefused(str(error)) from error
    if len({each.name for each in index.models}) != len(index.models):
        raise BundleRefused("it names one model twice")
    blobs_of(index.models)
    return index


def _check_parts(parts: list[Part]) -> None:
    if len({each.name.lower() for each in parts}) != len(parts):
        raise BundleRefused("it names one file twice")
    for each in parts:
        if not _NAME.fullmatch(each.name) or each.name.split("/")[0] in _KEPT:
            raise BundleRefused(f"it holds a file of an impossible name ({each.name[:100]!r})")
        if not DIGEST.fullmatch(each.sha256) or each.bytes < 0:
            raise BundleRefused(f"{each.name} has no proper SHA-256 or size")


def _other_kind(data: bytes, error: Exception) -> str:
    """What to say of a list that is not a site's."""

    class Any(msgspec.Struct):
        content: str = "models"
        models: list[msgspec.Raw] = []

    try:
        if msgspec.json.decode(data, type=Any).content == "models":
            return "it holds models only: `turnpike models import-bundle` takes it in"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        pass
    return f"its {INDEX} cannot be read, or is from a newer Turnpike: {error}"
