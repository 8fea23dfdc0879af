"""A provider's refusals and faults, in the gateway's words.

What a provider says about the request itself (400, 422) goes to the caller, cleaned; everything
else it says goes to the log, since it may name the operator's account, key or machines.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from plugins.contract import AdapterError, FailureKind

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
TEXT_MAX = 512
RETRY_AFTER_S_MAX = 60.0

_KEY_LIKE = re.compile(
    r"\b(?:sk|hf|gsk|key|pk|xai|tp)[-_][A-Za-z0-9*_.-]{4,}|AIza[\w-]{4,}|Bearer\s+\S+"
)
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size).{0,40}(exceed|maximum|limit)"
    r"|(exceed|maximum|larger|longer).{0,60}context.{0,20}(length|window|size)",
    re.IGNORECASE | re.DOTALL,
)
_TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})

_BY_STATUS: dict[int, tuple[FailureKind, str]] = {
    401: (FailureKind.AUTH, "the provider refused the appliance's credentials"),
    403: (FailureKind.AUTH, "the provider refused the appliance's credentials"),
    402: (FailureKind.NO_CREDIT, "the appliance's account at the provider has no credit"),
    404: (FailureKind.NOT_FOUND, "the provider does not know the model"),
    410: (FailureKind.NOT_FOUND, "the provider no longer serves the model"),
    408: (FailureKind.TIMEOUT, "the provider ran out of time"),
    504: (FailureKind.TIMEOUT, "the provider ran out of time"),
    429: (FailureKind.RATE_LIMITED, "the provider limits the rate of requests"),
    503: (FailureKind.OVERLOADED, "the provider is overloaded"),
    529: (FailureKind.OVERLOADED, "the provider is overloaded"),
}


class ProviderError(msgspec.Struct, frozen=True):
    """What an error body says; empty where it says nothing."""

    message: str = ""
    code: str = ""
    kind: str = ""
    param: str | None = None


def clean(text: str, secret: str | None) -> str:
    """One printable line of at most 512 characters without our key or what looks like one."""
    if secret:
        text = _without(text, secret)
    text = _KEY_LIKE.sub("***", text[: TEXT_MAX * 8])
    text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(text.split())[:TEXT_MAX]


def _without(text: str, secret: str) -> str:
    """The text without the secret, nor the beginning of it where the text was cut short in it."""
    text = text.replace(secret, "***")
    for length in range(min(len(secret) - 1, len(text)), 3, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + "***"
    return text


def read_error(error: Any) -> ProviderError:
    """Read the error forms in use: an object, a bare string, or FastAPI's ``detail``."""
    if isinstance(error, str):
        return ProviderError(message=error)
    if not isinstance(error, dict):
        return ProviderError()
    inner = error.get("error")
    if isinstance(inner, dict | str) and inner:
        return read_error(inner)
    message = error.get("message") or error.get("detail") or ""
    param = error.get("param")
    return ProviderError(
        message=message if isinstance(message, str) else str(message),
        code=str(error.get("code") or ""),
        kind=str(error.get("type") or ""),
        param=param if isinstance(param, str) else None,
    )


def error_in_answer(error: Any, secret: str | None) -> AdapterError:
    """An error that came with status 200, in a body or in a stream."""
    said = read_error(error)
    return AdapterError(
        FailureKind.UPSTREAM,
        "the provider reported an error in its answer",
        detail=clean(f"{said.code} {said.kind} {said.message}", secret),
        status=200,
    )


def refusal(
    status: int, header: Callable[[str], str | None], body: bytes, secret: str | None
) -> AdapterError:
    """The failure that an HTTP status other than 2xx stands for.

    ``header`` looks one up by its lower-case name; ``body`` may be cut short.
    """
    said = _read_body(body)
    words = clean(said.message, secret)
    detail = words or clean(body.decode("utf-8", "replace"), secret)
    if status in (400, 413, 422):
        kind, message, param = _of_request(status, said, words)
        if param is not None and (len(param) > 128 or clean(param, secret) != param):
            param = None
    else:
        kind, message = _BY_STATUS.get(status, (FailureKind.UPSTREAM, "the provider failed"))
        param = None
        if status == 429 and "insufficient_quota" in (said.code, said.kind):
            kind, message = _BY_STATUS[402]
        elif 300 <= status < 400:
            message = "the provider answered with a redirect, which is never followed"
    return AdapterError(
        kind,
        message,
        detail=f"HTTP {status}: {detail}",
        status=status,
        retry_after_s=_retry_after_s(header) if status in (429, 503, 529) else None,
        param=param,
    )


def _read_body(body: bytes) -> ProviderError:
    try:
        return read_error(msgspec.json.decode(body))
    except DECODE_ERRORS:
        return ProviderError()


def _of_request(
    status: int, said: ProviderError, words: str
) -> tuple[FailureKind, str, str | None]:
    """Failures that are the caller's: these alone carry the provider's words."""
    if _TOO_LONG_CODES & {said.code, said.kind} or _TOO_LONG.search(said.message):
        return FailureKind.CONTEXT_LENGTH, words or "the prompt is too long for the model", None
    if status == 413:
        return FailureKind.BAD_REQUEST, words or "the request is too large for the provider", None
    return FailureKind.BAD_REQUEST, words or "the provider refused the request", said.param


def _retry_after_s(header: Callable[[str], str | None]) -> float | None:
    """Seconds to wait, at most 60; None where the provider does not say so in a form we know.

    RFC 9110, section 10.2.3: a number of seconds or a date. A date is compared with the reply's own
    ``Date``, so that a wrong clock on either side does not matter.
    """
    value = header("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = _moment(value)
        if until is None:
            return None
        now = _moment(header("date") or "") or datetime.now(UTC)
        seconds = (until - now).total_seconds()
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def unreadable(why: object, body: bytes, secret: str | None) -> AdapterError:
    """The reply is not what the format says; ``body`` goes to the log, cut and cleaned."""
    said = clean(body[:1024].decode("utf-8", "replace"), secret)
    return AdapterError(
        FailureKind.PROTOCOL,
        "the provider's answer cannot be read",
        detail=f"{str(why)[:120]}: {said}",
    )
