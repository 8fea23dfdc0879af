"""Anthropic's errors, in the gateway's words.

``{"type": "error", "error": {"type", "message"}}``, with a status or in a stream
(anthropics/anthropic-sdk-python, ``types/shared/error_type.py``; Anthropic's page on errors). The
texts that tell faults of one type apart were read in public issues.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from plugins.contract import AdapterError, FailureKind
from plugins.http import failures

TOO_LONG = re.compile(
    r"prompt is too long|input is too long|exceeds? (?:the )?context limit"
    r"|too many (?:total )?(?:input )?tokens in (?:the )?(?:prompt|request)",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(r"credit balance is too low|specified API usage limits", re.IGNORECASE)
_DISABLED = re.compile(r"organization has been disabled", re.IGNORECASE)
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def refusal(
    status: int, header: Callable[[str], str | None], body: bytes, secret: str | None
) -> AdapterError:
    """The failure that a status other than 2xx stands for."""
    error = failures.refusal(status, header, body, secret)
    try:
        said = failures.read_error(msgspec.json.decode(body))
    except failures.DECODE_ERRORS:
        said = failures.ProviderError()
    request_id = failures.clean(header("request-id") or "", secret)[:80]
    return _told_apart(error, said, f"{request_id} ".lstrip())


def in_answer(error: Any, secret: str | None) -> AdapterError:
    """An error that came with status 200: its type says which status it stands for."""
    said = failures.read_error(error)
    status = _STATUS_OF_TYPE.get(said.kind)
    if status is None:
        return failures.error_in_answer(error, secret)
    body = msgspec.json.encode({"error": {"type": said.kind, "message": said.message}})
    found = failures.refusal(status, lambda _: None, body, secret)
    return _told_apart(found, said, "in the answer: ")


def _told_apart(
    error: AdapterError, said: failures.ProviderError, before_detail: str
) -> AdapterError:
    """Anthropic says with status 400 what is not the caller's fault too."""
    kind, message, param = error.kind, error.message, error.param
    if kind is FailureKind.BAD_REQUEST:
        if TOO_LONG.search(said.message):
            kind, param = FailureKind.CONTEXT_LENGTH, None
        elif _NO_CREDIT.search(said.message):
            kind = FailureKind.NO_CREDIT
            message = "the appliance's account at the provider has no credit"
        elif _DISABLED.search(said.message):
            kind = FailureKind.AUTH
            message = "the provider refused the appliance's credentials"
    return AdapterError(
        kind,
        message,
        detail=before_detail + error.detail,
        status=error.status,
        retry_after_s=error.retry_after_s,
        param=param,
    )
