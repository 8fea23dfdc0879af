"""Takes in a bundle that was read from end to end: what there is to do, and doing it.

Each step is whole or not at all, and the same again where it was done already: the models come into
the store, which nobody is served from yet; one rename puts the prices and the served models into
place; the program comes by one rename of a link. Last of all it is written down that all of it was
done. So a call that was broken off leaves what was there or what is new, and the next one goes on.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from app.config_carried import CARRIED_FILE, Carried
from app.model_store import open_store
from app.site_bundle.index import CannotCarry
from app.site_bundle.installing import (
    check_home,
    install_in_home,
    remove_stages,
    run_install,
    stage,
    starts_service,
)
from app.site_bundle.place import Place, as_owner_of, check_platform, nearest, numbers
from app.site_bundle.reading import SiteBundle
from local_runtime.store.blobs import sync_folder, write_whole
from local_runtime.store.bundle import FREE_BYTES_KEPT, Tell, put_models, take_blobs
from local_runtime.store.catalog import Manifest, NotInStore, Store
from local_runtime.store.gguf_model import checked as _read_before  # noqa: F401  # see as_owner_of
from local_runtime.store.locking import locked

Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to do. ``replaces`` is the version in use; ``terms`` whether prices or served
    models change; ``unfinished`` that an earlier call did not come to its end; ``damaged`` that
    what was carried before cannot be read.
    """

    version: str
    program: bool
    replaces: str | None
    models: list[str]
    models_here: list[str]
    terms: bool
    overruled: list[str]
    unfinished: bool
    damaged: bool
    bytes_needed: int

    @property
    def nothing(self) -> bool:
        return not (self.program or self.models or self.terms or self.unfinished)


def plan(
    bundle: SiteBundle, place: Place, *, models_only: bool, allow_older: bool
) -> tuple[Plan, Carried]:
    """What would be done, and what prices and models would be in force. Changes nothing.

    Raises CannotCarry for what does not fit here, ConfigError, StoreError.
    """
    index, before = bundle.index, place.carried()
    program = not models_only and not place.has(index.part(index.program.part).sha256)
    if not models_only:
        check_platform(index.program)
        if place.options is None:
            check_home(place)
    if not allow_older:
        _check_age(bundle, place, before, models_only=models_only)
    terms = merged(before, bundle)
    config = place.with_terms(terms)
    folder = place.config.models_folder()
    here = [each for each in index.models if _is_here(folder, each)]
    found = Plan(
        version=index.program.version,
        program=program,
        replaces=place.installed(),
        models=[str(each.name) for each in index.models if each not in here],
        models_here=[str(each.name) for each in here],
        terms=before is None or _without_mark(before) != _without_mark(terms),
        overruled=_overruled(bundle.carried, config),
        unfinished=before is None or before.bundle != bundle.digest,
        damaged=before is None and (place.data_dir / CARRIED_FILE).exists(),
        bytes_needed=0,
    )
    needed = _needs(bundle, place, found)
    _check_room(needed)
    return msgspec.structs.replace(found, bytes_needed=sum(needed.values())), terms


def carry_out(
    bundle: SiteBundle, place: Place, todo: Plan, terms: Carried, say: Say, tell: Tell
) -> None:
    """Do it. Raises CannotCarry, StoreError, OSError; what was in force then still is."""
    try:
        if todo.nothing:
            return
        folder = stage(bundle, place) if todo.program else None
        if folder is not None and place.options is not None and not place.data_dir.is_dir():
            run_install(place, folder, todo.version, say, "--no-start")
            if not starts_service(place):
                folder = None
        place.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with as_owner_of(place.data_dir), locked(place.data_dir / "bundle.lock"):
            _take_models(bundle, place, tell)
            path = place.data_dir / CARRIED_FILE
            before = path.read_bytes() if path.is_file() else None
            write_whole(path, encoded(terms))
        try:
            if folder is not None and place.options is not None:
                run_install(place, folder, todo.version, say)
            elif folder is not None:
                install_in_home(place, folder, todo.version, say)
        except BaseException:
            with as_owner_of(place.data_dir):
                _put_back(path, before)
            raise
        with as_owner_of(place.data_dir):
            write_whole(path, encoded(msgspec.structs.replace(terms, bundle=bundle.digest)))
    finally:
        remove_stages(place)


def merged(before: Carried | None, bundle: SiteBundle) -> Carried:
    """The bundle's prices, and its models beside those of earlier bundles."""
    new = bundle.carried
    taken = {str(each.get("id")) for each in new.models}
    kept = [each for each in before.models if str(each.get("id")) not in taken] if before else []
    return msgspec.structs.replace(
        new, at_ms=bundle.index.at_ms, bundle="", models=[*new.models, *kept]
    )


def encoded(carried: Carried) -> bytes:
    """The file."""
    return msgspec.json.format(msgspec.json.encode(carried), indent=1) + b"\n"


def _take_models(bundle: SiteBundle, place: Place, tell: Tell) -> None:
    models = bundle.index.models
    if models:
        store = open_store(place.config)
        take_blobs(store, bundle.at_models(), models, tell)
        put_models(store, [each for each in models if not _is_here(store.root, each)])


def _put_back(path: Path, before: bytes | None) -> None:
    if before is not None:
        write_whole(path, before)
        return
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _is_here(folder: Path, manifest: Manifest) -> bool:
    """Whether the store has just that; it is not made for the question."""
    if not (folder / "manifests").is_dir():
        return False
    store = Store(folder)
    try:
        if store.get(manifest.name) != manifest:
            return False
    except NotInStore:
        return False
    return all(store.blobs.has(each.sha256, each.bytes) for each in manifest.files)


def _check_age(
    bundle: SiteBundle, place: Place, before: Carried | None, *, models_only: bool
) -> None:
    """A bundle that was forgotten in a drawer takes nothing back."""
    index, installed = bundle.index, place.installed()
    if (
        not models_only
        and installed is not None
        and numbers(index.program.version) < numbers(installed)
    ):
        raise CannotCarry(
            f"It holds Turnpike {index.program.version}, and {installed} is installed: nothing was"
            " changed. --allow-older takes it all the same."
        )
    if before is not None and index.at_ms < before.at_ms:
        raise CannotCarry(
            "It is older than the bundle that was applied here last, and so are its prices: nothing"
            " was changed. --allow-older takes it all the same."
        )


def _overruled(carried: Carried, config: object) -> list[str]:
    """What the site's own configuration says otherwise, so that it stays as it is."""
    table = msgspec.to_builtins(config)
    found = []
    hardware = table["local"]["hardware"]
    price = carried.hardware.get("price_usd_per_second")
    if price is not None and hardware["price_usd_per_second"] != price:
        found.append("the price of this machine's time ([local.hardware])")
    for provider in table["providers"]:
        for model in provider["models"]:
            terms = carried.prices.get(provider["id"], {}).get(model["id"])
            if terms and any(_bare(model.get(key)) != value for key, value in terms.items()):
                found.append(f"the price of {model['id']} at {provider['id']}")
    mine = {each["id"]: each["source"] for each in table["local"]["models"]}
    for each in carried.models:
        if mine.get(each["id"]) != each["source"]:
            found.append(f"the source of {each['id']} ([[local.models]])")
    return found


def _bare(value: object) -> object:
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items() if inner is not None}
    return [_bare(each) for each in value] if isinstance(value, list) else value


def _needs(bundle: SiteBundle, place: Place, todo: Plan) -> dict[Path, int]:
    """Bytes by the folder whose disk they go to."""
    index, found = bundle.index, {}
    if todo.program:
        parts = sum(each.bytes for each in index.parts)
        found[nearest(place.lib)] = 2 * (index.program.unpacked_bytes + parts)
    folder = place.config.models_folder()
    blobs = {
        file.sha256: file.bytes
        for each in index.models
        if str(each.name) in todo.models
        for file in each.files
        if not (folder / "blobs" / f"sha256-{file.sha256}").is_file()
    }
    if blobs:
        at = nearest(folder)
        found[at] = found.get(at, 0) + sum(blobs.values()) + FREE_BYTES_KEPT
    return found


def _check_room(needed: dict[Path, int]) -> None:
    """Raises CannotCarry; folders of one disk count together."""
    disks: dict[int, list[Path]] = {}
    for each in needed:
        disks.setdefault(each.stat().st_dev, []).append(each)
    for folders in disks.values():
        size = sum(needed[each] for each in folders)
        free = shutil.disk_usage(folders[0]).free
        if size > free:
            names = " and ".join(map(str, folders))
            raise CannotCarry(
                f"It needs {size / 1e6:.0f} MB in {names}, where {free / 1e6:.0f} MB are free:"
                " nothing was changed. Make room and apply it again."
            )


def _without_mark(carried: Carried) -> Carried:
    return msgspec.structs.replace(carried, bundle="")
