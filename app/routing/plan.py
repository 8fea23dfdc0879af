"""Model name + snapshot + health → the offers to try, in order. Pure: no I/O, no clock."""

from collections.abc import Callable, Sequence

import msgspec

from app.errors import NotFound, UnsupportedParameter
from app.routing.catalog import Snapshot
from app.routing.health import OfferKey
from plugins.contract import Offer

ATTEMPTS_MAX = 3


class RoutePlan(msgspec.Struct, frozen=True):
    """The offers to try, best first, at most ATTEMPTS_MAX."""

    model: str
    offers: tuple[Offer, ...]


def plan(
    name: str,
    given_params: Callable[[], Sequence[str]],
    snapshot: Snapshot,
    live: Callable[[OfferKey], bool],
) -> RoutePlan:
    """Find who serves ``org/name`` or ``org/name:provider`` and can honour every given parameter.

    ``given_params`` gives the names of the parameters that carry a value. Raises NotFound, or
    UnsupportedParameter naming the first parameter that no offer of the model honours.
    """
    model, _, provider = name.partition(":")
    offers = snapshot.models.get(model)
    if offers is None:
        raise NotFound(
            f"The model {model!r} does not exist here. GET /v1/models lists those that do.",
            param="model",
            code="model_not_found",
        )
    if provider:
        offers = tuple(offer for offer in offers if offer.provider == provider)
        if not offers:
            served_by = ", ".join(offer.provider for offer in snapshot.models[model])
            raise NotFound(
                f"The model {model!r} is not served by {provider!r}; it is served by: {served_by}.",
                param="model",
                code="model_not_found",
            )
    able = offers
    if any(offer.supported_params is not None for offer in offers):
        params = given_params()
        able = tuple(offer for offer in offers if _honours(offer, params))
        if not able:
            raise _refusal(model, offers, params)
    if len(able) > 1:
        able = tuple(sorted(able, key=lambda offer: not live((offer.provider, offer.model))))
    return RoutePlan(model, able[:ATTEMPTS_MAX])


def _honours(offer: Offer, params: Sequence[str]) -> bool:
    supported = offer.supported_params
    return supported is None or all(param in supported for param in params)


def _refusal(model: str, offers: Sequence[Offer], params: Sequence[str]) -> UnsupportedParameter:
    """Name a parameter that nobody honours, or else the first that some offer lacks."""
    lacking = [p for p in params if not any(_honours(offer, [p]) for offer in offers)]
    named = lacking or [p for p in params if not all(_honours(offer, [p]) for offer in offers)]
    providers = ", ".join(offer.provider for offer in offers)
    return UnsupportedParameter(
        f"{', '.join(map(repr, named))} is not supported for the model {model!r} by {providers}. "
        "Leave it out, or choose another model.",
        param=named[0],
    )
