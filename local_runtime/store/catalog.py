"""What is in the store: one JSON manifest for each variant of each model, and a folder of its files
under their own names (hard links to the blobs), which is what engines open.
"""

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from local_runtime.store.blobs import DIGEST, Blobs, StoreError, made_folder, write_whole
from local_runtime.store.locking import locked
from local_runtime.store.names import (
    NameRefused,
    StoreName,
    checked_file,
    checked_id,
    checked_variant,
    preference,
)

MANIFEST_BYTES_MAX = 4 * 1024 * 1024
FILES_MAX = 2000
_LINK_TRIES = 100


class StoredFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a model; ``name`` is its path inside the model's folder."""

    name: str
    bytes: int
    sha256: str
    role: Literal["weights", "projector", "config", "tokenizer"]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One variant of one model. ``parent`` is the variant that it was requantised from; ``at`` is
    when it came, in milliseconds since 1970.
    """

    id: str
    variant: str
    format: Literal["gguf", "safetensors"]
    files: list[StoredFile]
    source: str
    revision: str | None = None
    licence: str | None = None
    at_ms: int
    parent: str | None = None

    @property
    def name(self) -> StoreName:
        return StoreName(self.id, self.variant)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def of_role(self, role: str) -> list[StoredFile]:
        return sorted((f for f in self.files if f.role == role), key=lambda file: file.name)


class NotInStore(StoreError):
    """There is no such model here."""


class Store:
    """The models' folder: blobs, manifests, and the folders that engines read from."""

    def __init__(self, root: Path) -> None:
        """Made (0700) where it is missing. Raises StoreError, OSError."""
        self.root = root
        self.blobs = Blobs(root)
        self._manifests = made_folder(root / "manifests")
        self._folders = made_folder(root / "models")
        self._locks = made_folder(root / "locks")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else adds or removes a model meanwhile."""
        with locked(self._locks / "store.lock"):
            yield

    @contextmanager
    def pulling(self, what: str, waiting: Callable[[], None]) -> Iterator[bool]:
        """Nobody else pulls the same meanwhile; True when nobody did. See ``locking.locked``."""
        with locked(self._locks / f"{self.blobs.partial_path(what).stem}.lock", waiting) as free:
            yield free

    def every(self) -> list[Manifest]:
        """All models, by name. A manifest that cannot be read is not one of them."""
        found = []
        for path in sorted(self._manifests.glob("*.json")):
            try:
                found.append(self._read(path))
            except (StoreError, FileNotFoundError):
                continue
        return sorted(found, key=lambda each: (each.id, preference(each.variant)))

    def variants(self, model_id: str) -> list[Manifest]:
        """The variants of one model, the one that is taken by default first."""
        return [each for each in self.every() if each.id == model_id]

    def get(self, name: StoreName) -> Manifest:
        """Raises NotInStore, and StoreError for a manifest that is damaged."""
        variants = self.variants(checked_id(name.id))
        wanted = [
            each
            for each in variants
            if name.variant is None or each.variant.lower() == name.variant.lower()
        ]
        if wanted:
            return wanted[0]
        if variants:
            there = ", ".join(each.variant for each in variants)
            raise NotInStore(f"{name} is not in the store; of {name.id} there is: {there}")
        if name.variant is not None and (path := self._manifest_path(name)).exists():
            self._read(path)  # says what is wrong with it
        raise NotInStore(f"{name} is not in the store; see `turnpike models list --store`")

    def put(self, manifest: Manifest) -> None:
        """Add or replace one variant; its blobs must be here. Raises StoreError, OSError."""
        check_manifest(manifest)
        with self.changing():
            for file in manifest.files:
                if not self.blobs.has(file.sha256, file.bytes):
                    raise StoreError(f"{manifest.name}: {file.name} went away meanwhile; try again")
            self._make_folder(manifest)
            data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            write_whole(self._manifest_path(manifest.name), data)

    def remove(self, name: StoreName) -> tuple[Manifest, int]:
        """Take one variant out, with the blobs that no other needs: what it was, bytes freed."""
        with self.changing():
            manifest = self.get(name)
            self._manifest_path(manifest.name).unlink()
            shutil.rmtree(self._folder(manifest.name), ignore_errors=True)
            still = {file.sha256 for each in self.every() for file in each.files}
            freed = 0
            for digest, size in {file.sha256: file.bytes for file in manifest.files}.items():
                if digest not in still:
                    self.blobs.remove(digest)
                    freed += size
        return manifest, freed

    def path_of(self, manifest: Manifest, file: StoredFile) -> Path:
        """Where an engine finds one file. Raises StoreError when it is not as it was."""
        path = self._folder(manifest.name) / checked_file(file.name)
        try:
            found = path.lstat()
        except FileNotFoundError:
            found = None
        if found is None or not _is_plain(found) or found.st_size != file.bytes:
            raise StoreError(
                f"{manifest.name}: {file.name} in the store is missing or was changed; remove the"
                f" model with `turnpike models rm {manifest.name}` and pull or import it again"
            )
        return path

    def weights_path(self, manifest: Manifest) -> Path:
        """The first (or only) file of a model's weights. Raises StoreError."""
        paths = [self.path_of(manifest, file) for file in manifest.of_role("weights")]
        if not paths:
            raise StoreError(f"{manifest.name} has no weights; remove it, and pull it again")
        return paths[0]

    def projector_path(self, manifest: Manifest) -> Path | None:
        """The file that reads pictures, where the model came with one. Raises StoreError."""
        found = manifest.of_role("projector")
        return self.path_of(manifest, found[0]) if found else None

    def _make_folder(self, manifest: Manifest) -> None:
        """Links to the blobs under the files' own names, whole or not at all."""
        folder = self._folder(manifest.name)
        fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        for file in manifest.files:
            path = fresh / checked_file(file.name)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _link(self.blobs.path(file.sha256), path)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)

    def _manifest_path(self, name: StoreName) -> Path:
        return self._manifests / f"{_file_name(name)}.json"

    def _folder(self, name: StoreName) -> Path:
        return self._folders / _file_name(name)

    def _read(self, path: Path) -> Manifest:
        if path.is_symlink() or path.stat().st_size > MANIFEST_BYTES_MAX:
            raise StoreError(f"{path} is not a manifest")
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
            check_manifest(manifest)
        except (msgspec.MsgspecError, NameRefused, StoreError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        if path != self._manifest_path(manifest.name):
            raise StoreError(f"{path} is damaged: it speaks of {manifest.name}")
        return manifest


def now_ms() -> int:
    """Wall time, for manifests."""
    return time.time_ns() // 1_000_000


def _is_plain(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode)


def _link(blob: Path, path: Path) -> None:
    """``path``: the blob under another name, or a copy on a disk without hard links.

    Another process may put the same content in its place just then: link(2) finds the old file,
    without a name by now, and says that there is none. The next look finds the new one.
    """
    for tries_left in reversed(range(_LINK_TRIES)):
        try:
            os.link(blob, path)
        except FileNotFoundError:
            if not tries_left:
                raise
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOTSUP}:
                raise
            shutil.copyfile(blob, path)
            return
        else:
            return


def _file_name(name: StoreName) -> str:
    """A flat name from which a model's can be read: no folder of one holds a file of another."""
    assert name.variant is not None
    return f"{checked_id(name.id).replace('/', '%2F')}@{checked_variant(name.variant)}"


def check_manifest(manifest: Manifest) -> None:
    """Names, paths, hashes and sizes, whoever wrote it. Raises NameRefused, StoreError."""
    checked_id(manifest.id)
    checked_variant(manifest.variant)
    names = [str(checked_file(file.name)).lower() for file in manifest.files]
    if not 1 <= len(names) <= FILES_MAX or len(set(names)) != len(names):
        raise StoreError(f"{manifest.name} has no files, too many, or two of one name")
    for file in manifest.files:
        if not DIGEST.fullmatch(file.sha256) or file.bytes < 0:
            raise StoreError(f"{manifest.name}: {file.name} has no proper SHA-256 or size")
