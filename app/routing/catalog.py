"""Models and the offers that serve them, as one immutable snapshot that is swapped whole."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from plugins.contract import Adapter, Offer


class Snapshot(msgspec.Struct, frozen=True):
    """What could be served at one moment. ``models`` keeps the order of the configuration."""

    models: Mapping[str, tuple[Offer, ...]]
    built_at_s: int


class Catalog:
    """Holds the current snapshot; readers take it once per call and keep it."""

    def __init__(self, adapters: Mapping[str, Adapter], built_at_s: int) -> None:
        self._adapters = adapters
        self.snapshot = Snapshot(MappingProxyType({}), built_at_s)
        self.rebuild(built_at_s)

    def rebuild(self, built_at_s: int) -> None:
        """Ask every adapter for its offers. No I/O, so it cannot fail half-way."""
        models: dict[str, list[Offer]] = {}
        for adapter in self._adapters.values():
            for offer in adapter.offers():
                models.setdefault(offer.model, []).append(offer)
        frozen = {model: tuple(offers) for model, offers in models.items()}
        self.snapshot = Snapshot(MappingProxyType(frozen), built_at_s)

    def offers(self) -> list[Offer]:
        """Every offer, model by model."""
        return [offer for offers in self.snapshot.models.values() for offer in offers]
