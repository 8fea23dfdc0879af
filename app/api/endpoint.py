"""Thin ASGI route handlers for the hot paths: method, permission, then the handler itself.

Litestar routes to them; its request parsing, dependency injection and response classes cost more
than a whole call does here (performance.md), so they do without.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from litestar import asgi
from litestar.handlers import ASGIRouteHandler
from litestar.types import HTTPScope, Receive, Scope, Send

from app.api.auth import ANONYMOUS, Authenticator, Permission
from app.api.guard import answer_started, send_error
from app.api.refusals import Refusals
from app.api.traced import REFUSAL, Who, authenticated, traced
from app.errors import CallError, Internal, MethodNotAllowed
from app.identity.principal import Principal

if TYPE_CHECKING:
    from app.tracing.tracer import Tracing

log = logging.getLogger("turnpike.api")

Handler = Callable[[HTTPScope, Receive, Send, Principal], Awaitable[None]]


def endpoint(
    path: str | Sequence[str],
    handler: Handler,
    *,
    methods: frozenset[str],
    permission: Permission,
    authenticator: Authenticator,
    mount: bool = False,
    refusals: Refusals | None = None,
    tracing: "Tracing | None" = None,
) -> ASGIRouteHandler:
    """A route handler that answers every CallError in the caller's dialect.

    ``handler`` gets the principal, ANONYMOUS on a public route. An error after its answer began is
    its own to tell; here it only ends the connection. ``refusals`` notes the errors of calls, and
    ``tracing`` makes their traces, where they are switched on.
    """
    asked = {Permission.CALL: authenticator.principal, Permission.OWNER: authenticator.owner}
    who: Who | None = asked.get(permission)
    if tracing is not None and who is not None:
        who = authenticated(who)

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        http: HTTPScope = scope  # type: ignore[assignment]  # no websocket routes exist
        principal = None
        try:
            if http["method"] not in methods:
                allowed = ", ".join(sorted(methods))
                raise MethodNotAllowed(f"{http['method']} is not allowed here; use {allowed}.")
            principal = ANONYMOUS if who is None else await who(http)
            await handler(http, receive, send, principal)
        except CallError as error:
            failure = error
        except Exception:
            call_id = call_id_of(http)
            log.exception("request %s: a fault of the handler", call_id, extra={"call_id": call_id})
            failure = Internal()
        else:
            return
        if tracing is not None:
            http["state"][REFUSAL] = failure
        if not answer_started(http):
            if refusals is not None:
                refusals.note(http, principal, failure)
            await send_error(send, failure, call_id_of(http))

    handler_of = asgi(path, is_mount=mount, copy_scope=False, opt={"permission": permission})
    if tracing is None:
        return handler_of(handle)
    return handler_of(traced(path if isinstance(path, str) else path[0], handle, tracing))


def call_id_of(scope: HTTPScope) -> str:
    """The request's id, which the guard made."""
    call_id: str = scope["state"]["call_id"]
    return call_id
