"""``/api/models``."""

from typing import Any

from litestar import Request, get

from app.api.admin.asking import services_of
from app.api.admin.wire import ModelLine, ModelList
from app.routing.health import Health
from plugins.contract import Offer


@get("/models")
async def list_models(request: Request[Any, Any, Any]) -> ModelList:
    """Every offer, with its price."""
    services = services_of(request)
    return ModelList([_line(offer, services.health) for offer in services.catalog.offers()])


def _line(offer: Offer, health: Health) -> ModelLine:
    return ModelLine(
        model=offer.model,
        provider=offer.provider,
        task=offer.task,
        status="live" if health.closed((offer.provider, offer.model)) else "error",
        price=offer.price,
        context_length=offer.context_length,
        output_tokens_max=offer.output_tokens_max,
    )
