"""Any error → the body that the caller's dialect expects, with the request's id. Nothing else
makes an error body.

OpenAI's shape (openai/openai-openapi, ``ErrorResponse``): ``{"error": {message, type, param,
code}}``, all four always there; ours adds ``request_id``, the value of the ``Inference-Id`` header,
and what OpenRouter's errors have: ``metadata.error_type``, and ``availability`` where nobody can
serve the request. Beside it stand the seconds that a model of this machine takes to load, as
``estimated_time``, where Hugging Face's clients look for them.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from app.errors import (
    Availability,
    CallError,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    ModelLoading,
    NotFound,
)

_encode = msgspec.json.Encoder().encode


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None
    request_id: str
    metadata: dict[str, Any]
    availability: Availability | UnsetType = UNSET


class _Envelope(msgspec.Struct):
    error: _Error
    estimated_time: float | UnsetType = UNSET


def error_body(error: CallError, call_id: str) -> bytes:
    """The JSON body."""
    return _encode(
        _Envelope(
            _Error(
                error.message,
                error.type,
                error.param,
                error.code,
                call_id,
                {"error_type": error.error_type, **error.metadata},
                error.availability or UNSET,
            ),
            round(error.estimated_s, 1) if isinstance(error, ModelLoading) else UNSET,
        )
    )


def error_headers(error: CallError) -> list[tuple[bytes, bytes]]:
    """The headers that say when to try again, and whether at all."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if error.retryable is not None:
        headers.append((b"x-should-retry", b"true" if error.retryable else b"false"))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="turnpike"'))
    return headers


_BY_STATUS: Mapping[int, type[CallError]] = {404: NotFound, 405: MethodNotAllowed}


def from_status(status: int, message: str) -> CallError:
    """A framework's own refusal as one of ours."""
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    if 400 <= status < 500:
        return InvalidRequest(message)
    return Internal()
