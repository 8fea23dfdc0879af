"""``/api/orgs/{org}/switches``: providers and models that an org does not pay for."""

from typing import Any

from litestar import Request, delete, get, put
from litestar.params import FromPath

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.org_access import org_to_change, org_to_see
from app.api.admin.orgs_wire import NewSwitch, SwitchList, SwitchQuery
from app.api.auth import principal_of
from app.billing.switches import SwitchedOff, SwitchKind
from app.errors import NotFound
from app.identity.names import shown
from app.routing.catalog import Snapshot


@get("/orgs/{org:str}/switches")
async def list_switches(request: Request[Any, Any, Any], org: FromPath[str]) -> SwitchList:
    """What the org has switched off."""
    found = await org_to_see(request, org)
    return SwitchList(await services_of(request).switches.list(found.id))


@put("/orgs/{org:str}/switches")
async def switch_off(request: Request[Any, Any, Any], org: FromPath[str]) -> SwitchedOff:
    """Switch a provider or a model off, with the reason that members are told."""
    found, services = await org_to_change(request, org, "provider_switches"), services_of(request)
    asked = await body_of(request, NewSwitch)
    _check_known(services.catalog.snapshot, asked.kind, asked.name)
    by_user_id = principal_of(request).user_id
    return await services.switches.off(found.id, asked.kind, asked.name, asked.reason, by_user_id)


@delete("/orgs/{org:str}/switches", status_code=200)
async def switch_on(request: Request[Any, Any, Any], org: FromPath[str]) -> SwitchedOff:
    """Switch it on again."""
    found, asked = await org_to_change(request, org), query_of(request, SwitchQuery)
    return await services_of(request).switches.on(found.id, asked.kind, asked.name)


def _check_known(snapshot: Snapshot, kind: SwitchKind, name: str) -> None:
    """A switch with a typing mistake in it would switch nothing off, so it is refused."""
    offers = [*snapshot.unpriced, *(offer for each in snapshot.models.values() for offer in each)]
    if name not in {offer.model if kind == "model" else offer.provider for offer in offers}:
        raise NotFound(
            f"This appliance has no {kind} {shown(name)}; `turnpike models list` shows them."
        )
