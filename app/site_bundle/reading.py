"""Reads a site's bundle and believes nothing: the signature first, then every byte of the file."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from app.config_carried import Carried, decode_carried
from app.errors import ConfigError
from app.site_bundle.index import CARRIED, Part, SiteIndex, decode_index
from local_runtime.store.blobs import StoreError, open_to_read
from local_runtime.store.bundle import BundleRefused, Tell, check_signature, read_signed
from local_runtime.store.tar import BLOCK, TarError, padded, read_member

_CHUNK = 4 << 20


class SiteBundle:
    """A bundle whose signature is right and whose every byte was compared with its list.

    ``signed_by`` is the public key, None where nobody signed; ``digest`` the SHA-256 of the list.
    """

    def __init__(self, file: BinaryIO, index: SiteIndex, signed_by: str | None) -> None:
        self.index = index
        self.signed_by = signed_by
        self.digest = ""
        self.file_sha256 = ""
        self.carried = Carried()
        self._file = file
        self._places: dict[str, int] = {}

    @classmethod
    def read(
        cls,
        file: BinaryIO,
        trusted: Sequence[str] | None,
        *,
        allow_unsigned: bool,
        tell: Tell = lambda _what, _done, _total: None,
    ) -> Self:
        """Check all of an open file. ``trusted`` is None to take anybody's signature.

        Raises BundleRefused, OSError.
        """
        try:
            data, signature = read_signed(file)
            check_signature(data, signature, trusted, allow_unsigned=allow_unsigned)
            found = cls(file, decode_index(data), signature.key or None)
            found._check(data, msgspec.json.encode(signature), tell)
        except TarError as error:
            raise BundleRefused(str(error)) from error
        return found

    def copy(self, part: Part, target: BinaryIO) -> None:
        """Write a part somewhere, hashed once more: the file may have been changed since."""
        self._file.seek(self._places[part.name])
        if _hashed(self._file, part.bytes, hashlib.sha256(), target.write) != part.sha256:
            raise BundleRefused("it was changed while it was read")

    def content(self, part: Part) -> bytes:
        """The bytes of a small part."""
        self._file.seek(self._places[part.name])
        data = self._file.read(part.bytes)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise BundleRefused("it was changed while it was read")
        return data

    def at_models(self) -> BinaryIO:
        """The file, where the models' blobs begin."""
        self._file.seek(self._places["blobs"])
        return self._file

    def _check(self, data: bytes, signature: bytes, tell: Tell) -> None:
        """Every byte behind the list and the signature, and those of their headers."""
        file, index, whole = self._file, self.index, hashlib.sha256()
        self.digest = hashlib.sha256(data).hexdigest()
        head = index.head(data, signature)
        size, wanted = os.fstat(file.fileno()).st_size, index.file_bytes(len(head))
        file.seek(0)
        if file.read(len(head)) != head:
            raise BundleRefused("it was changed, or damaged on the way")
        if size != wanted:
            what = "cut short" if size < wanted else "longer than it says"
            raise BundleRefused(f"it is {what}: {size} bytes instead of {wanted}")
        whole.update(head)
        for part in index.members():
            if part.name.startswith("blobs/"):
                self._places.setdefault("blobs", file.tell())
            self._check_header(part, whole)
            self._places[part.name] = file.tell()
            told = _further(tell, file.tell(), size)
            if _hashed(file, part.bytes, whole, told) != part.sha256:
                raise BundleRefused(f"{part.name} in it was changed, or damaged on the way")
            self._check_zeros(padded(part.bytes) - part.bytes, whole)
        self._places.setdefault("blobs", file.tell())
        self._check_zeros(len(index.tail(len(head))), whole)
        self.file_sha256 = whole.hexdigest()
        try:
            self.carried = decode_carried(self.content(index.part(CARRIED)), CARRIED)
        except ConfigError as error:
            raise BundleRefused(error.message) from error

    def _check_header(self, part: Part, whole: "hashlib._Hash") -> None:
        at = self._file.tell()
        member = read_member(self._file)  # says what is wrong with a link, or a path out of here
        if member is None or member.name != part.name:
            found = "the end" if member is None else repr(member.name[:100])
            raise BundleRefused(f"it holds {found} where {part.name} should be")
        self._file.seek(at)
        block = self._file.read(BLOCK)
        if block != self.index.header_of(part):
            raise BundleRefused(f"the entry of {part.name} was changed, or damaged on the way")
        whole.update(block)

    def _check_zeros(self, count: int, whole: "hashlib._Hash") -> None:
        found = self._file.read(count)
        if found != bytes(count):
            raise BundleRefused("there is something in it where nothing should be")
        whole.update(found)


@contextmanager
def opened(
    path: Path,
    trusted: Sequence[str] | None,
    *,
    allow_unsigned: bool = False,
    tell: Tell = lambda _what, _done, _total: None,
) -> Iterator[SiteBundle]:
    """A bundle that was checked from its first byte to its last. Raises StoreError, OSError."""
    with os.fdopen(open_to_read(path.resolve()), "rb") as file:
        try:
            found = SiteBundle.read(file, trusted, allow_unsigned=allow_unsigned, tell=tell)
        except StoreError as error:
            raise BundleRefused(f"{path.name}: {error}") from error
        yield found


def _hashed(
    file: BinaryIO, size: int, whole: "hashlib._Hash", use: Callable[[bytes], object]
) -> str:
    """SHA-256 of the next ``size`` bytes, which also go to ``whole`` and to ``use``."""
    hashed = hashlib.sha256()
    left = size
    while left:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise BundleRefused("it is cut short")
        hashed.update(chunk)
        whole.update(chunk)
        use(chunk)
        left -= len(chunk)
    return hashed.hexdigest()


def _further(tell: Tell, before: int, total: int) -> Callable[[bytes], None]:
    done = before

    def told(chunk: bytes) -> None:
        nonlocal done
        done += len(chunk)
        tell("checking", done, total)

    return told
