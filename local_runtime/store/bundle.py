"""Models in one signed file, for a site without a network.

A plain tar archive of ``bundle.json`` (the models' manifests), ``bundle.sig`` (over its bytes) and
the blobs in the order in which it names them. It is read as a stream: the signature is checked
before any blob is, each blob's hash before it gets its name, and nothing else may be in it.
"""

import shutil
import tarfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from local_runtime.store.accepted import FileRefused, check_file, check_model
from local_runtime.store.blobs import StoreError, WrongContent, open_to_read
from local_runtime.store.catalog import Manifest, Store, check_manifest, now_ms
from local_runtime.store.names import NameRefused
from local_runtime.store.signing import is_signed, sign
from local_runtime.store.tar import Member, TarError, read_member, skip_padding

FORMAT = 1
INDEX_BYTES_MAX = 16 * 1024 * 1024
SIGNATURE_BYTES_MAX = 4096
FREE_BYTES_KEPT = 256 * 1024 * 1024
_CHUNK = 4 << 20

Tell = Callable[[str, int, int], None]


class BundleRefused(StoreError):
    """The file is not a bundle that may be taken in; the text says why."""


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``bundle.json``; the blobs follow in the order of their first mention."""

    format: int
    at_ms: int
    models: list[Manifest]

    def blobs(self) -> dict[str, int]:
        """Digest and bytes."""
        return {file.sha256: file.bytes for each in self.models for file in each.files}


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``bundle.sig``; both empty in a bundle that nobody signed."""

    key: str
    signature: str


def write_bundle(
    store: Store,
    path: Path,
    models: Sequence[Manifest],
    key: Ed25519PrivateKey | None,
    tell: Tell = lambda _what, _done, _total: None,
) -> Index:
    """Write the models into the new file ``path``. Raises StoreError, OSError."""
    index = Index(FORMAT, now_ms(), list(models))
    data = msgspec.json.encode(index)
    partial = path.with_name(f".{path.name}.part")
    total = sum(index.blobs().values())
    done = 0
    try:
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
            archive.addfile(_entry("bundle.json", len(data)), BytesIO(data))
            signed = signature_of(data, key)
            archive.addfile(_entry("bundle.sig", len(signed)), BytesIO(signed))
            for digest, size in index.blobs().items():
                with open(open_to_read(store.blobs.path(digest)), "rb") as blob:
                    archive.addfile(_entry(blob_name(digest), size), blob)
                done += size
                tell("writing", done, total)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return index


def read_bundle(
    store: Store,
    path: Path,
    trusted: Sequence[str],
    *,
    allow_unsigned: bool = False,
    tell: Tell = lambda _what, _done, _total: None,
) -> list[Manifest]:
    """Take in every model of the bundle. Raises BundleRefused, StoreError, OSError."""
    with open(open_to_read(path.resolve()), "rb") as file:
        try:
            index = _index(file, trusted, allow_unsigned=allow_unsigned)
            _check_room(store, index)
            take_blobs(store, file, index.models, tell)
            if read_member(file) is not None:
                raise BundleRefused("it holds more than it says")
        except (TarError, NameRefused) as error:
            raise BundleRefused(f"{path.name}: {error}") from error
        except (BundleRefused, FileRefused, WrongContent) as error:
            raise BundleRefused(f"{path.name}: {error}") from error
    put_models(store, index.models)
    return index.models


def signature_of(data: bytes, key: Ed25519PrivateKey | None) -> bytes:
    """``bundle.sig`` for an index; one that says that nobody signed, without a key."""
    return msgspec.json.encode(Signature(*(("", "") if key is None else sign(key, data))))


def blobs_of(models: Sequence[Manifest]) -> dict[str, int]:
    """Digest and bytes of their files, in the order of their first mention.

    Raises BundleRefused where one file has two sizes.
    """
    found: dict[str, int] = {}
    for each in models:
        for file in each.files:
            if found.setdefault(file.sha256, file.bytes) != file.bytes:
                raise BundleRefused("its bundle.json gives one file two sizes")
    return found


def take_blobs(store: Store, file: BinaryIO, models: Sequence[Manifest], tell: Tell) -> None:
    """Read the blobs of all models, which come next, into the store; those in it are passed over.

    Raises BundleRefused, TarError, StoreError, OSError.
    """
    blobs = blobs_of(models)
    total = sum(blobs.values())
    done = 0
    for digest, size in blobs.items():
        _blob(store, file, models, digest, size, _further(tell, done, total))
        done += size


def put_models(store: Store, models: Sequence[Manifest]) -> None:
    """Name what ``take_blobs`` brought. Raises StoreError for a model that nothing can load."""
    for manifest in models:
        store.put(manifest)
        if manifest.format == "gguf":
            try:
                check_model(store.weights_path(manifest))
            except StoreError:
                store.remove(manifest.name)
                raise


def _further(tell: Tell, done: int, total: int) -> Callable[[int], None]:
    return lambda count: tell("unpacking", done + count, total)


def _index(file: BinaryIO, trusted: Sequence[str], *, allow_unsigned: bool) -> Index:
    """The signed list of what follows. Raises BundleRefused, TarError."""
    data, signature = read_signed(file)
    check_signature(data, signature, trusted, allow_unsigned=allow_unsigned)
    try:
        index = msgspec.json.decode(data, type=Index)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if b'"content":"site"' in data[:200]:
            raise BundleRefused("it is a whole site's: `turnpike bundle apply` takes it") from error
        raise BundleRefused(f"its bundle.json cannot be read: {error}") from error
    if index.format != FORMAT or not index.models:
        raise BundleRefused("it is of another version, or holds no model")
    for manifest in index.models:
        check_manifest(manifest)
    blobs_of(index.models)
    return index


def read_signed(file: BinaryIO) -> tuple[bytes, Signature]:
    """``bundle.json``, unread, and its signature, unchecked. Raises BundleRefused, TarError."""
    data = _small(file, "bundle.json", INDEX_BYTES_MAX)
    signed = _small(file, "bundle.sig", SIGNATURE_BYTES_MAX)
    try:
        return data, msgspec.json.decode(signed, type=Signature)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BundleRefused("its signature cannot be read") from error


def check_signature(
    data: bytes, signature: Signature, trusted: Sequence[str] | None, *, allow_unsigned: bool
) -> None:
    """Whether one whose key is in ``trusted`` (anybody, where that is None) signed ``data``.

    Raises BundleRefused.
    """
    if not signature.key and not signature.signature:
        if not allow_unsigned:
            raise BundleRefused(
                "nobody signed it; --allow-unsigned takes it all the same, if you know where it"
                " is from"
            )
    elif not is_signed(signature.key, signature.signature, data):
        raise BundleRefused("its signature is wrong: it was changed, or damaged on the way")
    elif trusted is not None and signature.key not in trusted:
        raise BundleRefused(
            f"it is signed with the key {signature.key}, which is not trusted here. If it is that"
            " of whom you expect, give it with --trust-key, or list it in trusted_keys under"
            " [local.hub]"
        )


def _small(file: BinaryIO, name: str, bytes_max: int) -> bytes:
    member = _expected(file, name)
    if member.size > bytes_max:
        raise BundleRefused(f"its {name} of {member.size} bytes is too large")
    data = file.read(member.size)
    if len(data) != member.size:
        raise BundleRefused("it is cut short")
    skip_padding(file, member.size)
    return data


def _expected(file: BinaryIO, name: str) -> Member:
    member = read_member(file)
    if member is None:
        raise BundleRefused(f"it is cut short: {name} is missing")
    if member.name != name:
        raise BundleRefused(f"it holds {member.name[:100]!r} where {name} should be")
    return member


def _blob(
    store: Store,
    file: BinaryIO,
    models: Sequence[Manifest],
    digest: str,
    size: int,
    tell: Callable[[int], None],
) -> None:
    """The next blob, into the store unless it is there. Raises BundleRefused, StoreError."""
    member = _expected(file, blob_name(digest))
    if member.size != size:
        raise BundleRefused(f"its {member.name} has {member.size} bytes instead of {size}")
    if store.blobs.has(digest, size):
        file.seek(size, 1)
        skip_padding(file, size)
        tell(size)
        return
    partial = store.blobs.partial_path(f"bundle {digest}")
    partial.unlink(missing_ok=True)
    try:
        _copy(file, partial, size, tell)
        skip_padding(file, size)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    names = {f.name for each in models for f in each.files if f.sha256 == digest}

    def check(found: Path) -> None:
        for name in sorted(names):
            check_file(found, name)

    store.blobs.adopt(partial, size=size, digest=digest, check=check)


def _copy(file: BinaryIO, partial: Path, size: int, tell: Callable[[int], None]) -> None:
    left = size
    with partial.open("xb") as target:
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                raise BundleRefused("it is cut short")
            target.write(chunk)
            left -= len(chunk)
            tell(size - left)


def _check_room(store: Store, index: Index) -> None:
    needed = sum(
        size for digest, size in index.blobs().items() if not store.blobs.has(digest, size)
    )
    free = shutil.disk_usage(store.root).free
    if needed + FREE_BYTES_KEPT > free:
        raise StoreError(
            f"the bundle needs {needed / 1e9:.2f} GB in {store.root}, where {free / 1e9:.2f} GB are"
            " free; `turnpike models prune` and `turnpike models rm` make room"
        )


def blob_name(digest: str) -> str:
    """What a blob is called in a bundle."""
    return f"blobs/sha256-{digest}"


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o600
    return entry
