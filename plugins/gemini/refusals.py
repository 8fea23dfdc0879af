"""Google's errors, in the gateway's words.

``{"error": {"code", "message", "status", "details"}}``, with a status or in a stream
(google.rpc.Status; details are google.rpc.ErrorInfo, RetryInfo, QuotaFailure). The texts that tell
faults of one status apart were read in public issues of google-gemini/gemini-cli and of others.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

from plugins.contract import AdapterError, FailureKind
from plugins.http import failures

_TOO_LONG = re.compile(r"exceeds the maximum number of (?:input )?tokens", re.IGNORECASE)
_BAD_KEY = re.compile(r"api[ _]key (?:not (?:valid|found)|expired|invalid)", re.IGNORECASE)
_KEY_REASONS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED"})
_BILLING = re.compile(r"\bbilling\b", re.IGNORECASE)
_DELAY = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")
_STATUS_OF = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
BLOCKED = "the provider's policy refused the prompt"


class _Detail(msgspec.Struct, rename="camel"):
    reason: str | None = None
    retry_delay: str | None = None


class _Error(msgspec.Struct):
    code: int | None = None
    message: str = ""
    status: str = ""
    details: list[_Detail] = []


class _Body(msgspec.Struct):
    error: _Error


_decoder = msgspec.json.Decoder(_Body)
_list_decoder = msgspec.json.Decoder(list[_Body])


def refusal(
    status: int, header: Callable[[str], str | None], body: bytes, secret: str | None
) -> AdapterError:
    """The failure that a status other than 2xx stands for."""
    said = _read(body)
    if said is None:
        return failures.refusal(status, header, body, secret)
    # The message alone: the details name the operator's project.
    plain = msgspec.json.encode({"error": {"message": said.message}})
    return _told_apart(failures.refusal(status, header, plain, secret), said)


def in_answer(words: Any, secret: str | None) -> AdapterError:
    """An error that came with status 200: its own says which status it stands for."""
    said = _read(msgspec.json.encode({"error": words}))
    if said is None:
        return failures.error_in_answer(words, secret)
    status = _STATUS_OF.get(said.status) or said.code or 500
    if not 400 <= status < 600:
        status = 500
    plain = msgspec.json.encode({"error": {"message": said.message}})
    return _told_apart(failures.refusal(status, lambda _: None, plain, secret), said)


def blocked(reason: str) -> AdapterError:
    """The prompt was not let through, and there is no answer."""
    word = reason if re.fullmatch(r"[A-Z_]{1,40}", reason) else "no reason given"
    return AdapterError(FailureKind.REFUSED, f"{BLOCKED}: {word}")


def _read(body: bytes) -> _Error | None:
    try:
        return _decoder.decode(body).error
    except failures.DECODE_ERRORS:
        pass
    try:
        # Streams that were not asked for as events are lists, and so are their errors.
        found = _list_decoder.decode(body)
    except failures.DECODE_ERRORS:
        return None
    return found[0].error if found else None


def _told_apart(error: AdapterError, said: _Error) -> AdapterError:
    """Google says with status 400 what is not the caller's fault too."""
    kind, message = error.kind, error.message
    if kind is FailureKind.BAD_REQUEST:
        reasons = {detail.reason for detail in said.details}
        if _KEY_REASONS & reasons or _BAD_KEY.search(said.message):
            kind, message = FailureKind.AUTH, "the provider refused the appliance's credentials"
        elif _TOO_LONG.search(said.message):
            kind = FailureKind.CONTEXT_LENGTH
        elif said.status == "FAILED_PRECONDITION" and _BILLING.search(said.message):
            kind = FailureKind.NO_CREDIT
            message = "the appliance's account at the provider has no credit"
        elif said.status == "FAILED_PRECONDITION":
            # "User location is not supported": of the appliance's own place.
            kind, message = FailureKind.UPSTREAM, "the provider does not serve the appliance"
    waits = error.retry_after_s
    if waits is None and kind in (FailureKind.RATE_LIMITED, FailureKind.OVERLOADED):
        waits = _delay_in(said)
    detail = f"{said.status[:40]} {error.detail}".lstrip()
    return AdapterError(
        kind, message, detail=detail, status=error.status, retry_after_s=waits, param=error.param
    )


def _delay_in(said: _Error) -> float | None:
    """Seconds to wait, at most 60."""
    for detail in said.details:
        if detail.retry_delay and (found := _DELAY.fullmatch(detail.retry_delay)):
            return min(math.fabs(float(found[1])), failures.RETRY_AFTER_S_MAX)
    return None
