"""Bearer key → principal, and what each kind of route asks of it. Default deny: a route handler
that is registered without a permission does not start (``app.api.server``).
"""

import hmac
from enum import StrEnum
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler
from litestar.types import HTTPScope

from app.errors import InvalidKey, PermissionDenied
from app.identity.keys import KeyRing
from app.identity.principal import Principal

# Who calls a public route.
ANONYMOUS = Principal(user_id="", user_name="", key_id="")
# Who the command line acts as; it has no money and may not call models.
_OPERATOR = Principal(
    user_id="operator",
    user_name="operator",
    key_id="operator",
    owner=True,
)


class Permission(StrEnum):
    """What a route handler asks of its caller."""

    PUBLIC = "public"  # nothing: health and metrics
    CALL = "call"  # any good key
    OWNER = "owner"  # a key of an owner, or the running appliance's own admin token


class Authenticator:
    """Reads the key out of a request's headers.

    ``admin_token`` is made afresh at each start and lies in a file that only the operator's
    account can read; it stands for the command line and works on owner routes only.
    """

    def __init__(self, keyring: KeyRing, admin_token: str) -> None:
        self._keyring = keyring
        self._admin_token = admin_token.encode()

    async def principal(self, scope: HTTPScope) -> Principal:
        """Who calls. Raises InvalidKey."""
        bearer = bearer_of(scope)
        return self._keyring.cached(bearer) or await self._keyring.authenticate(bearer)

    async def caller(self, scope: HTTPScope) -> Principal:
        """Who asks: any good key, or the command line as the operator. Raises InvalidKey."""
        bearer = bearer_of(scope)
        if hmac.compare_digest(bearer.encode("utf-8", "replace"), self._admin_token):
            return _OPERATOR
        return self._keyring.cached(bearer) or await self._keyring.authenticate(bearer)

    async def owner(self, scope: HTTPScope) -> Principal:
        """Who calls an owner route. Raises InvalidKey or PermissionDenied."""
        principal = await self.caller(scope)
        if not principal.owner:
            raise PermissionDenied("This needs a key of an owner of this appliance.")
        return principal


def bearer_of(scope: HTTPScope) -> str:
    """The key, from ``Authorization: Bearer`` or ``x-api-key``. Raises InvalidKey without one."""
    api_key = ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, bearer = value.partition(b" ")
            if scheme.lower() == b"bearer" and bearer:
                return bearer.strip().decode("latin-1")
            raise InvalidKey("Send your API key as `Authorization: Bearer KEY`.")
        if name == b"x-api-key":
            api_key = value.decode("latin-1")
    if api_key:
        return api_key
    raise InvalidKey("No API key. Send it as `Authorization: Bearer KEY`.")


async def require_owner(
    connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler
) -> None:
    """Litestar guard of the /api surface: a key of an owner, or the command line."""
    authenticator: Authenticator = connection.app.state.authenticator
    principal = await authenticator.owner(connection.scope)  # type: ignore[arg-type]  # HTTP only
    connection.scope["state"]["principal"] = principal


async def require_caller(
    connection: ASGIConnection[Any, Any, Any, Any], _handler: BaseRouteHandler
) -> None:
    """Litestar guard of what every key may ask, about its own user and orgs: the handler checks
    which those are with ``principal_of``."""
    authenticator: Authenticator = connection.app.state.authenticator
    principal = await authenticator.caller(connection.scope)  # type: ignore[arg-type]  # HTTP only
    connection.scope["state"]["principal"] = principal


CALLERS_MAY = "callers_may"
"""The ``opt`` of a route handler that every good key may ask."""


async def require_permission(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Litestar guard: for owners, unless the handler is marked as for every key."""
    guard = require_caller if handler.opt.get(CALLERS_MAY) else require_owner
    await guard(connection, handler)


def principal_of(request: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Who asks, as one of the guards found out."""
    principal: Principal = request.scope["state"]["principal"]
    return principal
