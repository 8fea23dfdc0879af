"""``/api/billing`` and ``/api/events``: what every key may ask about its own user and orgs."""

from typing import Any

from litestar import Request, get

from app.api.admin.asking import query_of, services_of
from app.api.admin.billing_wire import BillingQuery, EventList, EventQuery, with_usd
from app.api.auth import principal_of
from app.api.services import Services
from app.billing.overview import Viewer
from app.billing.payers import Payer
from app.errors import InvalidRequest, NotFound, PermissionDenied
from app.identity.principal import Principal


@get("/billing")
async def show_billing(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """A payer's month: credit, what is used, held and owed, limits, and the projected end."""
    asked, services = query_of(request, BillingQuery), services_of(request)
    payer, viewer = await _asked_about(services, principal_of(request), asked)
    return with_usd(await services.overviews.of(payer, viewer))


@get("/events")
async def list_events(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """When a credit or a limit was nearly, or wholly, used up."""
    asked, services = query_of(request, EventQuery), services_of(request)
    org_id = await _org_to_watch(services, principal_of(request), asked.org)
    found = await services.events.newest(org_id=org_id, before=asked.before, limit=asked.limit)
    return with_usd(EventList(found, found[-1].id if len(found) == asked.limit else None))


async def _asked_about(
    services: Services, principal: Principal, asked: BillingQuery
) -> tuple[Payer, Viewer]:
    """Whose month it is, and how much of it the caller sees. Raises PermissionDenied, NotFound."""
    if asked.org is not None and asked.payer is not None:
        raise InvalidRequest("Name 'org' or 'payer', not both.", param="payer")
    everything = Viewer(principal.user_id, all_limits=True)
    if asked.payer is not None:
        if not principal.owner:
            raise PermissionDenied(
                "Only an owner of this appliance may name a payer. Leave out 'payer' to see your"
                " own; 'org' names an org you belong to.",
                param="payer",
            )
        return await services.payers.named(asked.payer), everything
    if asked.org is not None:
        if principal.owner:
            return await _org_named(services, asked.org), everything
        payer, role = await services.payers.org_of(asked.org, principal.user_id)
        return payer, Viewer(principal.user_id, all_limits=role == "admin")
    return await _own(services, principal), everything


async def _own(services: Services, principal: Principal) -> Payer:
    """The caller's user; for the command line, which is nobody, the first owner."""
    try:
        return await services.payers.of_id(principal.user_id)
    except NotFound as error:
        owner = await services.users.first_owner()
        if owner is None or not principal.owner:
            raise NotFound("Name the payer to ask about with 'payer'.", param="payer") from error
        return await services.payers.of_id(owner.id)


async def _org_named(services: Services, name: str) -> Payer:
    payer = await services.payers.named(name)
    if payer.kind != "org":
        raise InvalidRequest(f"{payer.name} is a user: ask with 'payer'.", param="org")
    return payer


async def _org_to_watch(services: Services, principal: Principal, org: str | None) -> str | None:
    """The org whose events are shown; None for all of them. Raises PermissionDenied, NotFound."""
    if principal.owner:
        return None if org is None else (await _org_named(services, org)).id
    if org is None:
        raise PermissionDenied(
            "Only an owner of this appliance sees all events. Name an org that you are an admin of"
            " with 'org'.",
            param="org",
        )
    payer, role = await services.payers.org_of(org, principal.user_id)
    if role != "admin":
        raise PermissionDenied(f"Only admins of {payer.name} see its events.", param="org")
    return payer.id
