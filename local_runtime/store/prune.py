"""What nobody needs any more: blobs of no model, parts of downloads that nobody goes on with."""

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from local_runtime.store.catalog import Store


class Pruned(msgspec.Struct, frozen=True):
    """One thing that went, or would go. ``what`` is "blob" or "partial"."""

    what: str
    name: str
    bytes: int
    age_s: float


def prune(store: Store, *, older_than_s: float, dry_run: bool = False) -> list[Pruned]:
    """Remove what is older than so long and belongs to no model; what was found is returned.

    Blobs count from when they came, since a pull that runs has blobs of a model to be.
    """
    with store.changing():
        needed = {file.sha256 for manifest in store.every() for file in manifest.files}
        found = []
        for what, path in _candidates(store, needed):
            with suppress(FileNotFoundError):  # a pull just made a blob of it, or gave it up
                status = path.lstat()
                age_s = time.time() - max(status.st_mtime, status.st_ctime if what == "blob" else 0)
                if age_s < older_than_s:
                    continue
                size = _bytes(path)
                if not dry_run:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                found.append(Pruned(what, path.name, size, age_s))
    return found


def _candidates(store: Store, needed: set[str]) -> Iterator[tuple[str, Path]]:
    for digest, path in store.blobs.every():
        if digest not in needed:
            yield "blob", path
    for path in sorted(store.blobs.partial.iterdir()):
        yield "partial", path
    for path in sorted((store.root / "models").glob(".*.new")):
        yield "partial", path


def _bytes(path: Path) -> int:
    if not path.is_dir():
        return path.lstat().st_size
    return sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
