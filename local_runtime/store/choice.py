"""Which files of a repository are a model: one quantisation, whole, with what belongs to it."""

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from local_runtime.store.accepted import role_of
from local_runtime.store.blobs import StoreError
from local_runtime.store.names import (
    SAFETENSORS,
    NameRefused,
    checked_file,
    checked_variant,
    preference,
    quantisation_of,
    split_of,
)

_POOLING = re.compile(r"\d+_Pooling/config\.json")  # sentence-transformers' way of pooling


class HubFile(msgspec.Struct, frozen=True):
    """A file as the Hub lists it: ``sha256`` of large ones, the hash that git gives to others."""

    name: str
    bytes: int
    sha256: str | None = None
    git_oid: str | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What to download, and what to call it."""

    format: Literal["gguf", "safetensors"]
    variant: str
    files: list[HubFile]


class NothingToPull(StoreError):
    """The repository holds no model that can be taken; the text says what there is."""


def choose(repo: str, files: Sequence[HubFile], quant: str | None, *, projector: bool) -> Choice:
    """The GGUF files of one quantisation, or a whole safetensors repository.

    Without ``quant``: Q4_K_M, then Q4_0 and on (``names.PREFERRED``). ``projector``: with the file
    that reads pictures, where there is one. Raises NothingToPull, with what there is to choose.
    """
    taken = [file for file in files if _may_be_stored(file.name)]
    weights = [f for f in taken if f.name.lower().endswith(".gguf") and _role(f) == "weights"]
    if quant is not None and quant.lower() == SAFETENSORS:
        return _safetensors(repo, taken)
    if not weights:
        if quant is not None and any(f.name.endswith(".safetensors") for f in taken):
            raise NothingToPull(
                f"{repo} holds no GGUF files, so there is no {quant}; without it, its safetensors"
                " are pulled"
            )
        return _safetensors(repo, taken)
    models: dict[str, list[HubFile]] = {}
    for file in weights:
        models.setdefault(split_of(file.name)[0], []).append(file)
    stem = _stem(repo, models, quant)
    parts = _all_parts(repo, models[stem])
    projectors = [f for f in taken if _role(f) == "projector"] if projector else []
    chosen = parts + sorted(projectors, key=_projector_preference)[:1]
    return Choice(format="gguf", variant=variant_of(stem), files=chosen)


def variant_of(stem: str) -> str:
    """What to call the model of that file name: its quantisation, else the name itself."""
    found = quantisation_of(stem)
    if found is not None:
        return found
    plain = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem.rpartition("/")[2])
    try:
        return checked_variant(plain.replace("..", "-").lstrip("._-")[:96])
    except NameRefused:
        return "default"


def _stem(repo: str, models: dict[str, list[HubFile]], quant: str | None) -> str:
    stems = sorted(models, key=lambda stem: (preference(variant_of(stem)), len(stem), stem))
    if quant is None:
        return stems[0]
    wanted = quant.upper().removesuffix(".GGUF")
    for names in (
        [stem for stem in stems if variant_of(stem).upper() == wanted],
        [stem for stem in stems if stem.rpartition("/")[2].upper() == wanted],
        [stem for stem in stems if variant_of(stem).upper().removeprefix("UD-") == wanted],
    ):
        if names:
            return min(names, key=lambda stem: (len(stem), stem))
    there = ", ".join(
        f"{variant_of(stem)} ({_size(sum(f.bytes for f in models[stem]))})" for stem in stems
    )
    raise NothingToPull(f"{repo} has no {quant}; there is: {there}")


def _all_parts(repo: str, files: list[HubFile]) -> list[HubFile]:
    """The parts of one model in order, none missing."""
    split = sorted((split_of(file.name)[1:], file) for file in files)
    count = split[0][0][1]
    if [place for place, _ in split] != [(number, count) for number in range(1, count + 1)]:
        raise NothingToPull(
            f"{repo}: of {count} parts of {split[0][1].name} there are only {len(split)}"
        )
    return [file for _, file in split]


def _safetensors(repo: str, files: list[HubFile]) -> Choice:
    """Everything that a model of safetensors consists of; those in sub-folders are other models."""
    chosen = [
        file
        for file in files
        if ("/" not in file.name and not _is_gguf(file)) or _POOLING.fullmatch(file.name)
    ]
    if not any(file.name.lower().endswith(".safetensors") for file in chosen):
        names = ", ".join(sorted(file.name for file in files)[:8]) or "nothing that could be"
        raise NothingToPull(
            f"{repo} holds neither GGUF nor safetensors, which is all that the store takes (it has:"
            f" {names}). Look for a repository of that model with GGUF in its name"
        )
    if not any(file.name == "config.json" for file in chosen):
        raise NothingToPull(f"{repo} has safetensors but no config.json")
    whole = [f for f in chosen if not f.name.lower().startswith(("consolidated", "adapter_model"))]
    return Choice(format="safetensors", variant=SAFETENSORS, files=whole)


def _role(file: HubFile) -> str | None:
    return role_of(file.name)


def _is_gguf(file: HubFile) -> bool:
    return file.name.lower().endswith(".gguf")


def _may_be_stored(name: str) -> bool:
    try:
        checked_file(name)
    except NameRefused:
        return False
    return role_of(name) is not None


def _projector_preference(file: HubFile) -> tuple[int, int]:
    order = {"F16": 0, "Q8_0": 1, "BF16": 2, "F32": 3}
    return order.get(quantisation_of(file.name) or "", 4), file.bytes


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.0f} MB"
