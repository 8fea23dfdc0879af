"""Every few seconds: asks the providers whose time has come which models they serve."""

import asyncio
import hashlib
import logging

import msgspec

from app.billing.prices import token_price
from app.config import Config
from app.config_providers import Provider
from app.routing.discovery import Discoveries, Source
from plugins.contract import Price

_logger = logging.getLogger(__name__)


async def discover_models(discoveries: Discoveries) -> None:
    """One round. Whatever goes wrong, the next comes."""
    try:
        await discoveries.refresh()
    except asyncio.CancelledError:
        return  # The scheduler stops: what was found before is kept.
    except Exception:
        _logger.exception("asking providers for their models failed; the next round comes")


def sources_of(config: Config) -> list[Source]:
    """The providers that are asked, as the configuration has them."""
    return [_source(provider) for provider in config.providers if provider.discover is not None]


def _source(provider: Provider) -> Source:
    discover = provider.discover
    if discover is None:
        raise ValueError(f"{provider.id} is not asked for its models")
    price = None if discover.price is None else token_price(discover.price)
    if price == Price():
        price = Price(free=True)  # noughts that were written down are a gift
    if price is None and discover.free:
        price = Price(free=True)
    names = {model.id for model in provider.models}
    names |= {model.upstream_id for model in provider.models if model.upstream_id is not None}
    return Source(
        provider=provider.id,
        origin=_origin(provider),
        every_s=discover.every_seconds,
        price=price,
        as_billed=provider.trust_cost,
        only=tuple(discover.only),
        ignore=tuple(discover.ignore),
        configured=frozenset(names),
    )


def _origin(provider: Provider) -> str:
    """What the list depends on; of settings only a digest, since nobody knows what is in them."""
    origin = f"{provider.plugin} {provider.base_url or ''}"
    if not provider.settings:
        return origin
    settings = msgspec.json.encode(provider.settings, order="deterministic")
    return f"{origin} {hashlib.sha256(settings).hexdigest()}"
