"""``GET /v1/models`` and ``GET /v1/models/{id}``, in the shape of Hugging Face's router: OpenAI's
objects, each with the providers that serve the model.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from litestar.types import HTTPScope, Receive, Send

from app.api.answer import send_answer
from app.clock import Clock
from app.errors import NotFound
from app.identity.principal import Principal
from app.routing.catalog import Catalog
from app.routing.health import Health
from plugins.contract import Offer, Price

_PREFIX = "/v1/models"
_encode = msgspec.json.Encoder().encode
_NANO = 10**9


class Models:
    """The routes' handler."""

    def __init__(self, catalog: Catalog, health: Health, clock: Clock) -> None:
        self._catalog = catalog
        self._health = health
        self._clock = clock

    async def __call__(
        self, scope: HTTPScope, _receive: Receive, send: Send, _principal: Principal
    ) -> None:
        snapshot = self._catalog.snapshot_at(self._clock.now_ms())
        name = unquote(scope["raw_path"].decode("ascii", "replace"))
        name = name.removeprefix(_PREFIX).strip("/")
        if name:
            offers = snapshot.models.get(name)
            if offers is None:
                raise NotFound(
                    f"The model {name!r} does not exist here. GET /v1/models lists those that do.",
                    param="model",
                    code="model_not_found",
                )
            body: Any = self._model(name, offers, snapshot.built_at_s)
        else:
            models = snapshot.models.items()
            data = [self._model(name, offers, snapshot.built_at_s) for name, offers in models]
            body = {"object": "list", "data": data}
        await send_answer(send, 200, _encode(body))

    def _model(self, name: str, offers: Sequence[Offer], created: int) -> dict[str, Any]:
        owner, slash, _ = name.partition("/")
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": owner if slash else offers[0].provider,
            "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
            "providers": [self._provider(offer) for offer in offers],
        }

    def _provider(self, offer: Offer) -> dict[str, Any]:
        closed = self._health.closed((offer.provider, offer.model))
        described: dict[str, Any] = {
            "provider": offer.provider,
            "status": "live" if closed else "error",
            "is_model_author": False,
        }
        if offer.context_length is not None:
            described["context_length"] = offer.context_length
        if offer.price.free:
            described["is_free"] = True
        described["pricing"] = pricing(offer.price)
        if offer.supported_params is not None:
            described["supports_tools"] = "tools" in offer.supported_params
            described["supports_structured_output"] = "response_format" in offer.supported_params
        return described


def pricing(price: Price) -> dict[str, float]:
    """USD per million tokens, and per second of compute, as the router's clients expect them; what
    else the offer has a price for is under names of its own.
    """
    described = {"input": price.input / _NANO, "output": price.output / _NANO}
    if price.compute_per_second:
        described["compute_per_second"] = price.compute_per_second / _NANO
    for name in ("cache_read", "cache_write", "reasoning", "audio_input", "audio_output"):
        own: int | None = getattr(price, name)
        if own is not None:
            described[name] = own / _NANO
    if price.image:
        described["image"] = price.image / _NANO / 10**6
    if price.per_request:
        described["per_request"] = price.per_request / _NANO
    return described
