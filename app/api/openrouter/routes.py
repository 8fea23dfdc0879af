"""The routes under ``/api/v1`` that OpenRouter's clients ask, and errors in its shape.

An error there is ``{"error": {"code": the HTTP status, "message"}}``.
"""

from typing import Any

import msgspec
from litestar import Request, Response, Router
from litestar.exceptions import HTTPException

from app.api.auth import require_caller
from app.api.envelope import error_headers, from_status
from app.api.openrouter.credits import show_credits
from app.api.openrouter.key import show_key
from app.errors import CallError


def openrouter_router() -> Router:
    """For every good key, about itself."""
    return Router(
        path="/api/v1",
        guards=[require_caller],
        route_handlers=[show_key, show_credits],
        exception_handlers={CallError: _refuse, HTTPException: _refuse_http},
    )


def _refuse(_request: Request[Any, Any, Any], error: CallError) -> Response[bytes]:
    body = {"error": {"code": error.status, "message": error.message}}
    return Response(
        msgspec.json.encode(body),
        status_code=error.status,
        media_type="application/json",
        headers={name.decode(): value.decode() for name, value in error_headers(error)},
    )


def _refuse_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    return _refuse(request, from_status(error.status_code, f"{error.detail.rstrip('.')}."))
