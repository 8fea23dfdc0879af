"""``/api/models``."""

from typing import Any

from litestar import Request, get

from app.api.admin.asking import services_of
from app.api.admin.wire import ModelLine, ModelList, UpcomingPrice
from app.api.services import Services
from plugins.contract import Offer


@get("/models")
async def list_models(request: Request[Any, Any, Any]) -> ModelList:
    """Every offer, with its price and those to come; last, what has no price in force."""
    services = services_of(request)
    now_ms = services.clock.now_ms()
    snapshot = services.catalog.snapshot_at(now_ms)
    priced = [offer for offers in snapshot.models.values() for offer in offers]
    lines = [_line(offer, services, now_ms, is_priced=True) for offer in priced]
    lines += [_line(offer, services, now_ms, is_priced=False) for offer in snapshot.unpriced]
    return ModelList(lines)


def _line(offer: Offer, services: Services, now_ms: int, *, is_priced: bool) -> ModelLine:
    alive = services.health.closed((offer.provider, offer.model))
    return ModelLine(
        model=offer.model,
        provider=offer.provider,
        tasks=list(offer.tasks),
        status=("live" if alive else "error") if is_priced else "unpriced",
        price=offer.price if is_priced else None,
        upcoming=[
            UpcomingPrice(each.from_ms, each.price)
            for each in services.catalog.prices.upcoming(offer, now_ms)
        ],
        context_length=offer.context_length,
        output_tokens_max=offer.output_tokens_max,
    )
