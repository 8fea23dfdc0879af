"""Files and folders of this machine into the store: named, checked, hashed."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from local_runtime.store.accepted import check_file, check_model, role_of
from local_runtime.store.blobs import StoreError
from local_runtime.store.catalog import Manifest, NotInStore, Store, StoredFile, now_ms
from local_runtime.store.choice import Choice, HubFile, choose, variant_of
from local_runtime.store.copying import add
from local_runtime.store.gguf import read_file
from local_runtime.store.names import (
    NameRefused,
    StoreName,
    checked_id,
    checked_variant,
    parse_store,
    split_of,
)

Tell = Callable[[str, int, int], None]


class AlreadyThere(StoreError):
    """Another model has the name."""


def import_path(
    store: Store,
    path: Path,
    name: str | None = None,
    *,
    link: bool = False,
    replace: bool = False,
    tell: Tell = lambda _what, _done, _total: None,
) -> Manifest:
    """Take in a GGUF file (all its parts), or a folder that holds a model, as ``name``.

    ``name`` is ``NAME[:VARIANT]``; what it leaves out comes from the file's. The store gets a file
    of its own; with ``link`` the very same one, where that is possible, so that whatever is written
    to it later is in the store too. Raises StoreError, NameRefused, OSError.
    """
    wanted = None if name is None else parse_store(name)
    folder, choice = _chosen(path, None if wanted is None else wanted.variant)
    target = StoreName(
        _id_of(path) if wanted is None else wanted.id,
        choice.variant if wanted is None or wanted.variant is None else wanted.variant,
    )
    first = folder / choice.files[0].name
    if choice.format == "gguf":
        check_model(first)
    for file in choice.files:
        check_file(folder / file.name, file.name)
    files = []
    total = sum(file.bytes for file in choice.files)
    done = 0
    for file in choice.files:
        before = done

        def told(count: int, file: HubFile = file, before: int = before) -> None:
            tell(f"taking in {file.name}", before + count, total)

        digest, size = add(store.blobs, folder / file.name, link=link, tell=told)
        role = role_of(file.name)
        entry = {"name": file.name, "bytes": size, "sha256": digest, "role": role}
        files.append(msgspec.convert(entry, StoredFile))
        done += size
    _refuse_other(store, target, files, replace=replace)
    manifest = Manifest(
        id=target.id,
        variant=str(target.variant),
        format=choice.format,
        files=files,
        source=f"file:{path.resolve().name}",
        licence=_licence(first) if choice.format == "gguf" else None,
        at_ms=now_ms(),
    )
    store.put(manifest)
    return manifest


def _chosen(path: Path, variant: str | None) -> tuple[Path, Choice]:
    """The folder and which of its files. Raises StoreError."""
    if path.is_dir():
        files = [
            HubFile(str(found.relative_to(path).as_posix()), found.stat().st_size)
            for found in sorted(path.rglob("*"))
            if found.is_file()
        ]
        try:
            return path, choose(path.name, files, variant, projector=True)
        except StoreError:
            if variant is None:
                raise
            return path, choose(path.name, files, None, projector=True)
    if not path.is_file():
        raise StoreError(f"there is no file and no folder {path}")
    if not path.name.lower().endswith(".gguf"):
        raise StoreError(
            f"{path.name}: one file is a GGUF file; a model of safetensors is imported by its"
            " folder, with config.json and tokenizer"
        )
    stem, _, count = split_of(path.name)
    names = [path.name]
    if count > 1:
        names = [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise StoreError(f"{path.name}: its part {missing[0]} is not beside it")
    files = [HubFile(name, (path.parent / name).stat().st_size) for name in names]
    return path.parent, Choice(format="gguf", variant=variant_of(stem), files=files)


def _id_of(path: Path) -> str:
    """A name from that of the file or folder, without what its variant says."""
    stem = split_of(path.name)[0] if path.is_file() else path.resolve().name
    variant = variant_of(stem)
    if stem.upper().endswith(variant.upper()) and len(stem) > len(variant):
        stem = stem[: -len(variant)].rstrip("-._")
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "-" for c in stem)
    try:
        checked_variant(variant)
        return checked_id(plain.strip("._-").replace("..", "-")[:96])
    except NameRefused:
        raise NameRefused(
            f"{path.name} gives no name for the model; give one with --name"
        ) from None


def _refuse_other(
    store: Store, target: StoreName, files: list[StoredFile], *, replace: bool
) -> None:
    try:
        there = store.get(target)
    except NotInStore:
        return
    same = {f.sha256 for f in there.files} == {f.sha256 for f in files}
    if not same and not replace:
        raise AlreadyThere(
            f"another model is called {there.name} in the store; give --name, or --replace"
        )


def _licence(path: Path) -> str | None:
    found = read_file(path).metadata.get("general.license")
    return found[:100] if isinstance(found, str) and found else None
