"""``/api/confinements`` and ``/api/preferred``: where calls may go, and where they go first."""

from typing import Any

from litestar import Request, delete, get, put

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.routing_wire import (
    ConfinementList,
    ConfinementQuery,
    NewConfinement,
    NewPreferredOrder,
    PreferredQuery,
)
from app.api.auth import principal_of
from app.api.services import Services
from app.errors import InvalidRequest, NotFound, PermissionDenied
from app.identity.confinement import Confinement
from app.identity.names import looks_like_id, shown
from app.identity.preferred import PreferredOrder
from app.identity.principal import Principal
from plugins.contract import Offer

LOCAL = "local"


@get("/confinements")
async def list_confinements(request: Request[Any, Any, Any]) -> ConfinementList:
    """The confinements that the asker may see."""
    confinements = services_of(request).confinements
    return ConfinementList(await confinements.list(principal_of(request)))


@put("/confinements")
async def confine(request: Request[Any, Any, Any]) -> Confinement:
    """Confine a key, a user or an org to labels, from the next call on."""
    services, asked = services_of(request), await body_of(request, NewConfinement)
    _check_labels(services, asked.labels)
    return await services.confinements.confine(
        asked.kind, asked.subject, asked.labels, principal_of(request)
    )


@delete("/confinements", status_code=200)
async def lift_confinement(request: Request[Any, Any, Any]) -> Confinement:
    """Lift a confinement; what it was."""
    asked = query_of(request, ConfinementQuery)
    return await services_of(request).confinements.release(
        asked.kind, asked.subject, principal_of(request)
    )


@get("/preferred")
async def show_preferred(request: Request[Any, Any, Any]) -> PreferredOrder:
    """A user's own order of providers."""
    user = _whose(principal_of(request), query_of(request, PreferredQuery).user)
    return await services_of(request).preferred.shown(user)


@put("/preferred")
async def set_preferred(request: Request[Any, Any, Any]) -> PreferredOrder:
    """Set it, from the next call on."""
    services, asked = services_of(request), await body_of(request, NewPreferredOrder)
    user = _whose(principal_of(request), asked.user)
    known = {each.id for each in services.config.providers} | {LOCAL}
    for name in asked.providers:
        if name not in known:
            raise NotFound(f"There is no provider {shown(name)}; there are: {_listed(known)}.")
    return await services.preferred.set(user, asked.providers)


@delete("/preferred", status_code=200)
async def clear_preferred(request: Request[Any, Any, Any]) -> PreferredOrder:
    """Forget it: the configuration's order is in force again."""
    user = _whose(principal_of(request), query_of(request, PreferredQuery).user)
    return await services_of(request).preferred.clear(user)


def _whose(asker: Principal, user: str | None) -> str:
    """The user that is meant. Raises PermissionDenied for somebody else, but to owners."""
    if user is None:
        if not looks_like_id(asker.user_id):  # the command line is nobody
            raise InvalidRequest("Name the user whose order of providers it is.", param="user")
        return asker.user_name
    if not asker.owner and user.lower() != asker.user_name.lower():
        raise PermissionDenied("Only an owner of this appliance sees or sets others' orders.")
    return user


def _check_labels(services: Services, labels: list[str]) -> None:
    """A label with a typing mistake in it would let nothing through, so it is refused. ``local`` is
    always one, also where nothing is served on this machine."""
    known = {LOCAL}
    for offer in _offers(services):
        known |= offer.labels
    for label in labels:
        if label not in known:
            raise NotFound(
                f"No offer has the label {shown(label)}; there are: {_listed(known)}.",
                param="labels",
            )


def _offers(services: Services) -> list[Offer]:
    snapshot = services.catalog.snapshot
    offers = [offer for each in snapshot.models.values() for offer in each]
    return [*offers, *snapshot.unpriced]


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
