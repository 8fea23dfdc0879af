"""``/api/provider-keys`` and ``/api/orgs/{org}/provider-keys``: users' and orgs' own keys at
providers, which are set and removed and never read; ``/api/secrets``: the master key over them.
"""

from collections.abc import Awaitable
from typing import Any, TypeVar

from litestar import Request, delete, get, post, put
from litestar.params import FromPath

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.org_access import org_to_change
from app.api.admin.provider_keys_wire import (
    Forgotten,
    NewProviderKey,
    ProviderKeyList,
    WhoseKeys,
)
from app.api.auth import principal_of
from app.errors import ConfigError, InvalidRequest, NotFound, PermissionDenied, Unavailable
from app.identity.names import shown
from app.identity.provider_key_rows import ProviderKeyInfo
from app.identity.provider_keys import Rotation

T = TypeVar("T")


@get("/provider-keys")
async def list_provider_keys(request: Request[Any, Any, Any]) -> ProviderKeyList:
    """The caller's own keys; for owners of the appliance also another user's."""
    return await _list(request, await _user_of(request))


@put("/provider-keys/{provider:str}")
async def set_provider_key(
    request: Request[Any, Any, Any], provider: FromPath[str]
) -> ProviderKeyInfo:
    """Set a key, in place of the one before."""
    return await _set(request, await _user_of(request), provider)


@delete("/provider-keys/{provider:str}", status_code=200)
async def remove_provider_key(
    request: Request[Any, Any, Any], provider: FromPath[str]
) -> ProviderKeyInfo:
    """End a key, at once."""
    owner_id = await _user_of(request)
    return await services_of(request).provider_keys.remove(owner_id, provider)


@get("/orgs/{org:str}/provider-keys")
async def list_org_provider_keys(
    request: Request[Any, Any, Any], org: FromPath[str]
) -> ProviderKeyList:
    """An org's keys, for its admins."""
    return await _list(request, (await org_to_change(request, org)).id)


@put("/orgs/{org:str}/provider-keys/{provider:str}")
async def set_org_provider_key(
    request: Request[Any, Any, Any], org: FromPath[str], provider: FromPath[str]
) -> ProviderKeyInfo:
    """Set an org's key, in place of the one before."""
    return await _set(request, (await org_to_change(request, org)).id, provider)


@delete("/orgs/{org:str}/provider-keys/{provider:str}", status_code=200)
async def remove_org_provider_key(
    request: Request[Any, Any, Any], org: FromPath[str], provider: FromPath[str]
) -> ProviderKeyInfo:
    """End an org's key, at once."""
    found = await org_to_change(request, org)
    return await services_of(request).provider_keys.remove(found.id, provider)


@post("/secrets/rotate", status_code=200)
async def rotate_secrets(request: Request[Any, Any, Any]) -> Rotation:
    """Wrap all provider keys under the present master key."""
    return await _told(services_of(request).provider_keys.rotate())


@post("/secrets/forget", status_code=200)
async def forget_secrets(request: Request[Any, Any, Any]) -> Forgotten:
    """Remove the provider keys that no master key opens."""
    return Forgotten(await _told(services_of(request).provider_keys.forget_unreadable()))


async def _list(request: Request[Any, Any, Any], owner_id: str) -> ProviderKeyList:
    return ProviderKeyList(await services_of(request).provider_keys.list(owner_id))


async def _set(request: Request[Any, Any, Any], owner_id: str, provider: str) -> ProviderKeyInfo:
    asked, services = await body_of(request, NewProviderKey), services_of(request)
    if provider not in {each.id for each in services.config.providers}:
        raise NotFound(
            f"This appliance has no provider {shown(provider)} that takes a key;"
            " `turnpike models list` shows the providers.",
            param="provider",
        )
    return await _told(
        services.provider_keys.put(
            owner_id,
            provider,
            asked.secret,
            paid_fallback=asked.paid_fallback,
            set_by=principal_of(request).user_id,
        )
    )


async def _user_of(request: Request[Any, Any, Any]) -> str:
    """The id of the user whose keys are meant. Raises PermissionDenied, NotFound."""
    name, asker = query_of(request, WhoseKeys).user, principal_of(request)
    if asker.owner and name is not None:
        return (await services_of(request).users.by_name(name)).id
    if asker.key_id == "operator":
        raise InvalidRequest("Say whose key it is: 'user' names the user.", param="user")
    if name is None or name.lower() == asker.user_name.lower():
        return asker.user_id
    raise PermissionDenied("This key may change its own user's provider keys only.", param="user")


async def _told(work: Awaitable[T]) -> T:
    """What is wrong with the master key is told: whoever hears it runs the command line."""
    try:
        return await work
    except ConfigError as error:
        raise Unavailable(error.message, code="master_key_unavailable") from error
