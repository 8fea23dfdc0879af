"""``/api/providers``: how providers do, as calls and probes saw them."""

from typing import Any

from litestar import Request, get

from app.api.admin.asking import query_of, services_of
from app.api.admin.routing_wire import OfferLine, ProviderLine, ProviderList, ProviderQuery
from app.api.services import Services
from app.errors import NotFound
from app.identity.names import shown
from plugins.contract import Offer

LOCAL = "local"


@get("/providers")
async def list_providers(request: Request[Any, Any, Any]) -> ProviderList:
    """Every provider with its keys, circuits, figures and last probes."""
    services, asked = services_of(request), query_of(request, ProviderQuery)
    plugins = {each.id: each.plugin for each in services.config.providers}
    if services.config.local_models():
        plugins = {LOCAL: LOCAL, **plugins}
    if asked.provider:
        if asked.provider not in plugins:
            raise NotFound(f"There is no provider {shown(asked.provider)}.")
        plugins = {asked.provider: plugins[asked.provider]}
    offers: dict[str, list[Offer]] = {}
    for each in services.catalog.offers():
        offers.setdefault(each.provider, []).append(each)
    return ProviderList(
        [
            _provider(name, plugin, offers.get(name, []), services)
            for name, plugin in plugins.items()
        ]
    )


def _provider(name: str, plugin: str, offers: list[Offer], services: Services) -> ProviderLine:
    return ProviderLine(
        provider=name,
        plugin=plugin,
        keys=services.pools.states(name),
        discovery=services.discoveries.state(name),
        offers=[_offer(offer, services) for offer in offers],
    )


def _offer(offer: Offer, services: Services) -> OfferLine:
    key, health = (offer.provider, offer.model), services.health
    figures = health.figures(key)
    circuit = "closed" if health.healthy(key) else "half_open" if health.closed(key) else "open"
    return OfferLine(
        model=offer.model,
        labels=sorted(offer.labels),
        circuit=circuit,
        opens_in_s=round(health.opens_in_s(key), 1),
        first_token_ms=figures.first_token_ms,
        tokens_per_second=figures.tokens_per_second,
        probe=services.probe_results.of(key),
    )
