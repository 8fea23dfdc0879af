"""Whose usage a caller may see: owners all of it, admins of an org what it paid for, and everyone
their own user's."""

from typing import Any

from litestar import Request

from app.api.admin.asking import services_of
from app.api.admin.org_access import org_to_change
from app.api.admin.usage_wire import UsageAsked
from app.api.auth import principal_of
from app.errors import NotFound, PermissionDenied
from app.identity.names import looks_like_id
from app.identity.users import unknown_user
from app.metering.questions import Filters


async def filters_of(request: Request[Any, Any, Any], asked: UsageAsked) -> Filters:
    """What to count of what was asked for.

    Raises PermissionDenied and NotFound; neither tells who or what exists elsewhere.
    """
    services = services_of(request)
    org = None if asked.org is None else await org_to_change(request, asked.org)
    group_id = asked.group
    if group_id is not None and not looks_like_id(group_id):
        if org is None:
            raise NotFound("Say of which org: 'org' names it, or give the group's id.", param="org")
        group_id = (await services.groups.named(org.id, group_id)).id
    return Filters(
        user_id=await _user_id(request, asked.user, None if org is None else org.id),
        key_id=None if asked.key is None else await services.usage.key_id(asked.key),
        payer_id=None if org is None else org.id,
        group_id=group_id,
        model=asked.model,
        provider=asked.provider,
        outcome=asked.outcome,
    )


async def _user_id(
    request: Request[Any, Any, Any], name: str | None, org_id: str | None
) -> str | None:
    """The user to keep to; None for all that the caller may see otherwise."""
    services, asker = services_of(request), principal_of(request)
    if not asker.owner and org_id is None:
        if name is None or asker.user_id == name or asker.user_name.lower() == name.lower():
            return asker.user_id
        raise PermissionDenied(
            "This key may see its own user's usage only; admins of an org may add 'org'.",
            param="user",
        )
    if name is None or looks_like_id(name):
        return name
    found = await services.users.by_name(name)
    if not asker.owner and org_id is not None:
        role = await services.members.role_of(org_id, found.id)
        if role is None:
            raise unknown_user(name)
    return found.id
