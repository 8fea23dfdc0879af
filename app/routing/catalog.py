"""Models and the offers that serve them, as one immutable snapshot that is swapped whole."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from plugins.contract import Adapter, Offer, Price

log = logging.getLogger("turnpike.routing")
UNPRICED_NAMED_MAX = 20


class Prices(Protocol):
    """Which price an offer has when; ``app.billing.prices.PriceBook`` is the one."""

    def price_at(self, offer: Offer, at_ms: int) -> Price | None:
        """The price in force at a moment, None where there is none."""
        ...

    def upcoming(self, offer: Offer, at_ms: int) -> Sequence[Any]:
        """What comes into force later."""
        ...

    def span_at(self, at_ms: int) -> tuple[int, int]:
        """From when, and until before when, all prices are those of ``at_ms``."""
        ...


class _AsOffered:
    """The prices that the adapters gave their offers, for ever."""

    def price_at(self, offer: Offer, _at_ms: int) -> Price:
        return offer.price

    def upcoming(self, _offer: Offer, _at_ms: int) -> Sequence[Any]:
        return ()

    def span_at(self, _at_ms: int) -> tuple[int, int]:
        return -(2**63), 2**63 - 1


class Snapshot(msgspec.Struct, frozen=True):
    """What could be served at one moment. ``models`` keeps the order of the configuration.

    ``unpriced`` are the offers that have no price in force: nobody can call them.
    """

    models: Mapping[str, tuple[Offer, ...]]
    built_at_s: int
    unpriced: tuple[Offer, ...] = ()


class Labels(Protocol):
    """Which labels an offer carries; ``app.routing.labels.ConfiguredLabels`` is the one."""

    def of(self, provider: str, model: str) -> frozenset[str]:
        """The labels that the operator gave an offer."""
        ...


class _Unlabelled:
    """No offer carries any."""

    def of(self, _provider: str, _model: str) -> frozenset[str]:
        return frozenset()


class Catalog:
    """Holds the current snapshot; readers take it once per call and keep it.

    ``found`` gives the offers of a provider that were not configured but found by asking it; a
    configured offer for the same model wins.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        now_ms: int,
        prices: Prices | None = None,
        labels: Labels | None = None,
        found: Callable[[str], Sequence[Offer]] = lambda _provider: (),
    ) -> None:
        self._found = found
        self.reconfigure(adapters, now_ms, prices or _AsOffered(), labels or _Unlabelled())

    def reconfigure(
        self, adapters: Mapping[str, Adapter], now_ms: int, prices: Prices, labels: Labels
    ) -> None:
        """Take over another configuration, whole."""
        self.prices = prices
        self._adapters = adapters
        self._labels = labels
        self.rebuild(now_ms)

    def snapshot_at(self, now_ms: int) -> Snapshot:
        """The snapshot with the prices of that moment; a new one where a price's date has come.

        A clock that steps back over a date gets the prices from before it again.
        """
        if not self._from_ms <= now_ms < self._until_ms:
            self.rebuild(now_ms)
        return self.snapshot

    def rebuild(self, now_ms: int) -> None:
        """Ask every adapter for its offers. No I/O, so it cannot fail half-way."""
        models: dict[str, list[Offer]] = {}
        unpriced = []
        for offer in self._offers_now():
            price = self.prices.price_at(offer, now_ms)
            labels = self._labels.of(offer.provider, offer.model)
            if price is None:
                unpriced.append(msgspec.structs.replace(offer, labels=labels))
            else:
                whole = msgspec.structs.replace(offer, price=price, labels=labels)
                models.setdefault(offer.model, []).append(whole)
        self._warn(unpriced)
        frozen = {model: tuple(offers) for model, offers in models.items()}
        self.snapshot = Snapshot(MappingProxyType(frozen), now_ms // 1000, tuple(unpriced))
        self._from_ms, self._until_ms = self.prices.span_at(now_ms)

    def offers(self) -> list[Offer]:
        """Every offer that can be called, model by model."""
        return [offer for offers in self.snapshot.models.values() for offer in offers]

    def _offers_now(self) -> Iterator[Offer]:
        for provider, adapter in self._adapters.items():
            configured = adapter.offers()
            yield from configured
            known = {offer.model for offer in configured}
            yield from (offer for offer in self._found(provider) if offer.model not in known)

    @staticmethod
    def _warn(unpriced: Sequence[Offer]) -> None:
        for offer in unpriced[:UNPRICED_NAMED_MAX]:
            log.warning(
                "%s of %s has no price now, so nobody can call it", offer.model, offer.provider
            )
        if len(unpriced) > UNPRICED_NAMED_MAX:
            log.warning("%d more have none either", len(unpriced) - UNPRICED_NAMED_MAX)
