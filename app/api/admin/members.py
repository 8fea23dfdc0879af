"""``/api/orgs/{org}/members``: seats, for org admins to give and take."""

from typing import Any

from litestar import Request, delete, get, post, put
from litestar.params import FromPath

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.org_access import org_to_change, org_to_leave, org_to_see
from app.api.admin.orgs_wire import MemberList, NewMember, NewRole
from app.api.admin.wire import Page
from app.identity.members import Member


@get("/orgs/{org:str}/members")
async def list_members(request: Request[Any, Any, Any], org: FromPath[str]) -> MemberList:
    """A page of an org's members."""
    found, page = await org_to_see(request, org), query_of(request, Page)
    members = await services_of(request).members.list(found.id, after=page.after, limit=page.limit)
    return MemberList(members, members[-1].user_id if len(members) == page.limit else None)


@post("/orgs/{org:str}/members")
async def add_member(request: Request[Any, Any, Any], org: FromPath[str]) -> Member:
    """Give a user a seat."""
    found, services = await org_to_change(request, org), services_of(request)
    asked = await body_of(request, NewMember)
    member = await services.members.add(found.id, asked.user, asked.role)
    await services.ledger.catch_up([found.id])
    return member


@put("/orgs/{org:str}/members/{user:str}/role")
async def set_member_role(
    request: Request[Any, Any, Any], org: FromPath[str], user: FromPath[str]
) -> Member:
    """Make a member an admin, or an admin a member."""
    found = await org_to_change(request, org)
    asked = await body_of(request, NewRole)
    return await services_of(request).members.set_role(found.id, user, asked.role)


@delete("/orgs/{org:str}/members/{user:str}", status_code=200)
async def remove_member(
    request: Request[Any, Any, Any], org: FromPath[str], user: FromPath[str]
) -> Member:
    """Take a seat; members may leave by themselves."""
    found, services = await org_to_leave(request, org, user), services_of(request)
    member = await services.members.remove(found.id, user)
    await services.ledger.catch_up([found.id])
    return member
