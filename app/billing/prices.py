"""Prices as configured → prices as rated, and which of them is in force when.

A decimal string of USD per million tokens, in nano-USD, is just the integer that ``Price`` wants.
"""

from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from app.billing.rating import is_missing
from app.config import Config, Hardware, nano_usd
from app.config_providers import DatedPrice, ProviderModel, TokenPrice
from app.config_rules import moment_ms
from app.errors import ConfigError
from plugins.contract import Offer, Price

_EVER = -(2**63)
NEVER_MS = 2**63 - 1
_IMAGES = 10**6  # a Price counts images by the million, as it does tokens


class PriceFrom(msgspec.Struct, frozen=True):
    """A price and the moment from which it is in force, in milliseconds since 1970 UTC."""

    from_ms: int
    price: Price


class PriceBook:
    """Every configured price with its dates. What is not in it has the price its adapter gave it.

    All of the local runtime's models have the hardware's price.
    """

    def __init__(self, config: Config) -> None:
        self._of_models = {
            (provider.id, model.id): _timeline(model, as_billed=provider.trust_cost)
            for provider in config.providers
            for model in provider.models
        }
        self._local = _hardware_timeline(config.local.hardware)
        self._dates = sorted(
            {
                each.from_ms
                for prices in (*self._of_models.values(), self._local)
                for each in prices
                if each.from_ms != _EVER
            }
        )

    def price_at(self, offer: Offer, at_ms: int) -> Price | None:
        """The price of an offer at a moment; None where it has none yet, or none at all."""
        price = self._configured(offer, at_ms)
        return None if price is None or is_missing(price) else price

    def upcoming(self, offer: Offer, at_ms: int) -> list[PriceFrom]:
        """The prices of an offer that come into force after ``at_ms``, in their order."""
        return [each for each in self._prices_of(offer) if each.from_ms > at_ms]

    def span_at(self, at_ms: int) -> tuple[int, int]:
        """The span of time around ``at_ms`` in which no price changes: from, and until before."""
        after = bisect_right(self._dates, at_ms)
        return (
            self._dates[after - 1] if after else _EVER,
            self._dates[after] if after < len(self._dates) else NEVER_MS,
        )

    def _configured(self, offer: Offer, at_ms: int) -> Price | None:
        prices = self._prices_of(offer)
        if not prices:
            return offer.price
        after = bisect_right(prices, at_ms, key=lambda each: each.from_ms)
        return prices[after - 1].price if after else None

    def _prices_of(self, offer: Offer) -> Sequence[PriceFrom]:
        if offer.provider == "local":
            return self._local
        return self._of_models.get((offer.provider, offer.model), ())


def price_from_config(model: ProviderModel, *, as_billed: bool = False) -> Price:
    """A configured model's first price; ``as_billed`` as its provider's ``trust_cost`` says.

    Raises ConfigError where there is none and it is not free.
    """
    return _timeline(model, as_billed=as_billed)[0].price


def token_price(price: TokenPrice | DatedPrice) -> Price:
    """USD per million tokens, per image and per request → the units of ``Price``."""
    return Price(
        input=nano_usd(price.input or "0"),
        output=nano_usd(price.output or "0"),
        cache_read=_optional(price.cache_read),
        cache_write=_optional(price.cache_write),
        reasoning=_optional(price.reasoning),
        audio_input=_optional(price.audio_input),
        audio_output=_optional(price.audio_output),
        image=nano_usd(price.image or "0") * _IMAGES,
        character=nano_usd(price.characters or "0"),
        audio_second=nano_usd(price.audio_second or "0"),
        video_second=nano_usd(price.video_second or "0"),
        per_request=nano_usd(price.per_request or "0"),
    )


def compute_price(usd_per_second: str) -> Price:
    """USD per second of a machine's busy time, as a decimal string; an explicit zero is free."""
    return _said(Price(compute_per_second=nano_usd(usd_per_second)), as_billed=False)


def _timeline(model: ProviderModel, *, as_billed: bool) -> tuple[PriceFrom, ...]:
    """All prices of a model in the order of their dates, the undated one first."""
    if model.free:
        return (PriceFrom(_EVER, Price(free=True)),)
    found = []
    if model.price is not None:
        found.append(PriceFrom(_EVER, _said(token_price(model.price), as_billed=as_billed)))
    elif model.price_per_second is not None:
        price = Price(compute_per_second=nano_usd(model.price_per_second))
        found.append(PriceFrom(_EVER, _said(price, as_billed=as_billed)))
    for dated in model.prices:
        price = msgspec.structs.replace(
            token_price(dated), compute_per_second=nano_usd(dated.per_second or "0")
        )
        found.append(PriceFrom(moment_ms(dated.starts), _said(price, as_billed=as_billed)))
    if not found:
        raise ConfigError(
            f"model {model.id}: a price is needed; a model that costs nothing says free = true"
        )
    return tuple(found)


def _hardware_timeline(hardware: Hardware) -> tuple[PriceFrom, ...]:
    return (
        PriceFrom(_EVER, compute_price(hardware.price_usd_per_second)),
        *(
            PriceFrom(moment_ms(dated.starts), compute_price(dated.price_usd_per_second))
            for dated in hardware.prices
        ),
    )


def _said(price: Price, *, as_billed: bool) -> Price:
    """A price whose figures were written down: noughts all through are a gift, not an omission."""
    if is_missing(price):
        return Price(free=True)
    return msgspec.structs.replace(price, as_billed=True) if as_billed else price


def _optional(usd: str | None) -> int | None:
    return None if usd is None else nano_usd(usd)
