"""What a site is told: the prices that are configured here, and how the models are served."""

from collections.abc import Sequence
from typing import Any

import msgspec

from app.config import Config, LocalModel
from app.config_carried import HARDWARE_KEYS, PRICE_KEYS, Carried
from local_runtime.store.catalog import Manifest
from local_runtime.store.names import (
    NameRefused,
    StoreName,
    parse_hub,
    parse_store,
    quantisation_of,
)

_OF_THIS_MACHINE = ("threads", "gpu_layers", "process_bytes_max")
_FILES = ("projector", "draft", "adapters")


def carried_of(config: Config, models: Sequence[Manifest], at_ms: int) -> tuple[Carried, list[str]]:
    """What goes into the bundle, and what is left out of it, in words.

    A model is served as it is here; one that is only in the store, with defaults. What was chosen
    for this machine's processor or graphics card stays here, and so do files that are named by
    their path.
    """
    hardware = _plain(config.local.hardware)
    left_out: list[str] = []
    served: list[dict[str, Any]] = []
    for manifest in models:
        found = [each for each in config.local.models if _is(each, manifest)]
        if manifest.format != "gguf" and not found:  # not every edition serves it
            left_out.append(
                f"{manifest.name} is carried, and served only where [[local.models]] names it"
            )
            continue
        taken = {str(each["id"]) for each in served}
        for each in found or [_bare(manifest, taken)]:
            table = _given(each)
            gone = [key for key in _FILES if table.pop(key, None)]
            if gone:
                left_out.append(
                    f"{each.id}: its {', '.join(gone)}, which are files of this machine"
                )
            for key in _OF_THIS_MACHINE:
                table.pop(key, None)
            served.append({**table, "id": each.id, "source": f"store:{manifest.name}"})
    carried = Carried(
        at_ms=at_ms,
        hardware={key: hardware[key] for key in ("name", *HARDWARE_KEYS) if key in hardware},
        prices=_prices(config),
        models=served,
    )
    return carried, left_out


def _prices(config: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """By provider and model."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for provider in config.providers:
        for model in provider.models:
            table = _plain(model)
            terms = {key: table[key] for key in PRICE_KEYS if table.get(key)}
            found.setdefault(provider.id, {})[model.id] = terms
    return found


def _given(model: LocalModel) -> dict[str, Any]:
    """What differs from a model that nothing is said about."""
    bare = _plain(LocalModel(id=model.id, source=model.source))
    return {key: value for key, value in _plain(model).items() if bare.get(key) != value}


def _plain(table: msgspec.Struct) -> dict[str, Any]:
    """A table as the file would have it, without what is not given; the price of time always is."""
    found: dict[str, Any] = _without_none(msgspec.to_builtins(table))
    return found


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


def _is(model: LocalModel, manifest: Manifest) -> bool:
    """Whether the configuration serves just that variant, or any."""
    try:
        if model.source.startswith("store:"):
            name = parse_store(model.source)
        elif model.source.startswith("hf:"):
            hub = parse_hub(model.source)
            quant = hub.quant and (quantisation_of(hub.quant) or hub.quant)
            name = StoreName(hub.repo, quant or None)
        else:
            return False
    except NameRefused:
        return False
    wanted = (name.variant or manifest.variant).lower()
    return name.id == manifest.id and wanted == manifest.variant.lower()


def _bare(manifest: Manifest, taken: set[str]) -> LocalModel:
    """One that nothing is said about; another variant of a model has that in its name."""
    name = manifest.id if manifest.id not in taken else f"{manifest.id}-{manifest.variant}"
    return LocalModel(id=name, source=f"store:{manifest.name}")
