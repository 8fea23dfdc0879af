"""Who may see an org, and who may change it.

Whoever does not belong to an org hears the same as if there were none, so that nobody can try out
which orgs exist. Appliance owners, and the command line, may do all.
"""

from typing import Any

from litestar import Request

from app.api.admin.asking import services_of
from app.api.auth import principal_of
from app.billing.features import require_feature
from app.config_types import Feature
from app.errors import NotFound, PermissionDenied
from app.identity.members import MemberRole
from app.identity.names import shown
from app.identity.orgs import Org


async def org_to_see(request: Request[Any, Any, Any], name_or_id: str) -> Org:
    """The org, for its members. Raises NotFound."""
    return (await _found(request, name_or_id))[0]


async def org_to_change(
    request: Request[Any, Any, Any], name_or_id: str, feature: Feature | None = None
) -> Org:
    """The org, for its admins; with ``feature`` only on a tier that has it.

    Raises NotFound to those who do not belong to it, PermissionDenied to its other members.
    """
    org, role = await _found(request, name_or_id)
    if role != "admin":
        raise PermissionDenied(f"This needs a key of an admin of the org {org.name}.")
    if feature is not None:
        require_feature(services_of(request).tiers, org.tier, feature)
    return org


async def org_to_leave(request: Request[Any, Any, Any], name_or_id: str, user_name: str) -> Org:
    """The org, for its admins, and for the member who is to be removed. Raises as above."""
    if user_name.lower() == principal_of(request).user_name.lower():
        return await org_to_see(request, name_or_id)
    return await org_to_change(request, name_or_id)


async def _found(request: Request[Any, Any, Any], name_or_id: str) -> tuple[Org, MemberRole]:
    services, asker = services_of(request), principal_of(request)
    if asker.owner:
        return await services.orgs.named(name_or_id), "admin"
    try:
        org = await services.orgs.named(name_or_id)
    except NotFound:
        role = None
    else:
        role = await services.members.role_of(org.id, asker.user_id)
    if role is None:
        raise NotFound(f"You do not belong to an org named {shown(name_or_id)}.")
    return org, role
