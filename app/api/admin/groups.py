"""``/api/orgs/{org}/groups``: resource groups, which calls can be billed to by their id."""

from typing import Any

from litestar import Request, delete, get, post
from litestar.params import FromPath

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.org_access import org_to_change, org_to_see
from app.api.admin.orgs_wire import GroupList, GroupMemberList, NewGroup, NewGroupMember
from app.api.admin.wire import Page
from app.identity.groups import GroupMember, ResourceGroup


@get("/orgs/{org:str}/groups")
async def list_groups(request: Request[Any, Any, Any], org: FromPath[str]) -> GroupList:
    """A page of an org's resource groups."""
    found, page = await org_to_see(request, org), query_of(request, Page)
    groups = await services_of(request).groups.list(found.id, after=page.after, limit=page.limit)
    return GroupList(groups, groups[-1].id if len(groups) == page.limit else None)


@post("/orgs/{org:str}/groups")
async def add_group(request: Request[Any, Any, Any], org: FromPath[str]) -> ResourceGroup:
    """Make a resource group."""
    found = await org_to_change(request, org, "resource_groups")
    asked = await body_of(request, NewGroup)
    return await services_of(request).groups.add(found.id, asked.name)


@delete("/orgs/{org:str}/groups/{group:str}", status_code=200)
async def remove_group(
    request: Request[Any, Any, Any], org: FromPath[str], group: FromPath[str]
) -> ResourceGroup:
    """End a resource group, named by id or name."""
    found = await org_to_change(request, org)
    return await services_of(request).groups.remove(found.id, group)


@get("/orgs/{org:str}/groups/{group:str}/members")
async def list_group_members(
    request: Request[Any, Any, Any], org: FromPath[str], group: FromPath[str]
) -> GroupMemberList:
    """A page of those who may bill calls to the group, beside the org's admins."""
    found, page = await org_to_see(request, org), query_of(request, Page)
    store = services_of(request).groups
    members = await store.members(
        await store.named(found.id, group), after=page.after, limit=page.limit
    )
    return GroupMemberList(members, members[-1].user_id if len(members) == page.limit else None)


@post("/orgs/{org:str}/groups/{group:str}/members")
async def add_group_member(
    request: Request[Any, Any, Any], org: FromPath[str], group: FromPath[str]
) -> GroupMember:
    """Let a member of the org bill calls to the group."""
    found = await org_to_change(request, org, "resource_groups")
    asked = await body_of(request, NewGroupMember)
    return await services_of(request).groups.add_member(found.id, group, asked.user)


@delete("/orgs/{org:str}/groups/{group:str}/members/{user:str}", status_code=200)
async def remove_group_member(
    request: Request[Any, Any, Any],
    org: FromPath[str],
    group: FromPath[str],
    user: FromPath[str],
) -> GroupMember:
    """The reverse."""
    found = await org_to_change(request, org)
    return await services_of(request).groups.remove_member(found.id, group, user)
