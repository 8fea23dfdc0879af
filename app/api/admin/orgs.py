"""``/api/orgs``: orgs themselves. Owners make them and choose their tier."""

from typing import Any

from litestar import Request, get, post, put
from litestar.params import FromPath

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.org_access import org_to_change, org_to_see
from app.api.admin.orgs_wire import DefaultPayer, NewOrg, OrgList
from app.api.admin.wire import NewTier, Page
from app.api.auth import principal_of
from app.identity.orgs import Org


@get("/orgs")
async def list_orgs(request: Request[Any, Any, Any]) -> OrgList:
    """A page of the orgs that the caller belongs to; owners see all."""
    page, asker = query_of(request, Page), principal_of(request)
    store = services_of(request).orgs
    if asker.owner:
        orgs = await store.list(after=page.after, limit=page.limit)
    else:
        orgs = await store.of_member(asker.user_id, after=page.after, limit=page.limit)
    return OrgList(orgs, orgs[-1].id if len(orgs) == page.limit else None)


@post("/orgs")
async def add_org(request: Request[Any, Any, Any]) -> Org:
    """Make an org with its first admin."""
    asked, services = await body_of(request, NewOrg), services_of(request)
    org = await services.orgs.add(
        asked.name, asked.tier, asked.admin, default_payer=asked.default_payer
    )
    await services.ledger.catch_up([org.id])
    return org


@get("/orgs/{org:str}")
async def show_org(request: Request[Any, Any, Any], org: FromPath[str]) -> Org:
    """One org, by name or id."""
    return await org_to_see(request, org)


@put("/orgs/{org:str}/tier")
async def set_org_tier(request: Request[Any, Any, Any], org: FromPath[str]) -> Org:
    """Put an org on another tier, at once."""
    asked, services = await body_of(request, NewTier), services_of(request)
    found = await services.orgs.named(org)
    changed = await services.orgs.set_tier(found.id, asked.tier)
    await services.ledger.catch_up([changed.id])
    return changed


@put("/orgs/{org:str}/default-payer")
async def set_default_payer(request: Request[Any, Any, Any], org: FromPath[str]) -> Org:
    """Whether the org pays for its members' calls that name no payer."""
    found = await org_to_change(request, org)
    asked = await body_of(request, DefaultPayer)
    return await services_of(request).orgs.set_default_payer(found.id, asked.default_payer)
