"""A route with a trace: one span for each request, with its caller's trace above it, if it has one.

Only routes of an appliance that traces are wrapped; the others do not know of it.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from app.api.guard import status_of
from app.errors import CallError
from app.identity.principal import Principal
from app.tracing import attributes as of

if TYPE_CHECKING:
    from app.tracing.call_trace import CallTrace
    from app.tracing.tracer import Tracing

TRACE = "trace"
REFUSAL = "refusal"
_CALLER = "caller"

Who = Callable[[HTTPScope], Awaitable[Principal]]


def trace_of(scope: HTTPScope) -> "CallTrace | None":
    """The request's, where it has one."""
    found: CallTrace | None = scope["state"].get(TRACE)
    return found


def traced(route: str, handle: ASGIApp, tracing: "Tracing") -> ASGIApp:
    """The route's handler within a span, which ends with it or with the call that it begins."""

    async def handle_traced(scope: Scope, receive: Receive, send: Send) -> None:
        http: HTTPScope = scope  # type: ignore[assignment]  # no websocket routes exist
        state = http["state"]
        method = http["method"]
        said = {
            of.HTTP_METHOD: method,
            of.HTTP_ROUTE: route,
            of.URL_SCHEME: http["scheme"],
            of.REQUEST_ID: state["call_id"],
        }
        trace = state[TRACE] = tracing.begin(f"{method} {route}", http["headers"], said)
        try:
            await handle(scope, receive, send)
        finally:
            trace.end_request(*_ended(http))

    return handle_traced


def authenticated(who: Who) -> Who:
    """The same question with a span for how long it takes."""

    async def who_traced(scope: HTTPScope) -> Principal:
        trace: CallTrace = scope["state"][TRACE]
        with trace.step("authenticate"):
            principal = scope["state"][_CALLER] = await who(scope)
        return principal

    return who_traced


def _ended(scope: HTTPScope) -> tuple[str, dict[str, Any]]:
    """Why it failed, if it did, and what is to be said of it."""
    refusal: CallError | None = scope["state"].get(REFUSAL)
    said: dict[str, Any] = {of.HTTP_STATUS: status_of(scope)}
    principal: Principal | None = scope["state"].get(_CALLER)
    if principal is not None:
        said[of.USER_ID], said[of.KEY_ID] = principal.user_id, principal.key_id
    return ("" if refusal is None else refusal.code or refusal.type), said
