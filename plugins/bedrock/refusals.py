"""Amazon Bedrock's errors, in the gateway's words.

An error is ``{"message"}`` with its name in the header ``x-amzn-errortype``, or in a stream a frame
of the type ``exception`` with its name in ``:exception-type``. Names and statuses: boto/botocore,
``service-2.json``, and Amazon's common errors; the texts that tell faults of one name apart were
read in public issues.
"""

import re
from collections.abc import Callable

import msgspec

from plugins.anthropic.refusals import TOO_LONG
from plugins.contract import AdapterError, FailureKind
from plugins.http import failures

K = FailureKind
_OVERLOADED = (K.OVERLOADED, "the provider is overloaded")
_LIMITED = (K.RATE_LIMITED, "the provider limits the rate of requests")
_FAILED = (K.UPSTREAM, "the provider failed")
_CREDENTIALS = (K.AUTH, "the provider refused the appliance's credentials")
_NO_MODEL = (K.NOT_FOUND, "the provider does not know the model")
_NO_TIME = (K.TIMEOUT, "the provider ran out of time")
_BY_NAME: dict[str, tuple[FailureKind, str]] = {
    "accessdeniedexception": _CREDENTIALS,
    "unrecognizedclientexception": _CREDENTIALS,
    "invalidsignatureexception": _CREDENTIALS,
    "signaturedoesnotmatch": _CREDENTIALS,
    "incompletesignature": _CREDENTIALS,
    "incompletesignatureexception": _CREDENTIALS,
    "expiredtoken": _CREDENTIALS,
    "expiredtokenexception": _CREDENTIALS,
    "missingauthenticationtokenexception": _CREDENTIALS,
    "invalidclienttokenid": _CREDENTIALS,
    "resourcenotfoundexception": _NO_MODEL,
    "modeltimeoutexception": _NO_TIME,
    "throttlingexception": _LIMITED,
    "servicequotaexceededexception": _LIMITED,
    "modelnotreadyexception": _OVERLOADED,
    "serviceunavailableexception": _OVERLOADED,
    "internalserverexception": _FAILED,
    "modelerrorexception": _FAILED,
    "modelstreamerrorexception": _FAILED,
}
_NOT_SERVED = re.compile(
    r"access to the model|model identifier is invalid|on-demand throughput"
    r"|model .{0,80}(?:end of its life|not supported in this region)|^operation not allowed",
    re.IGNORECASE,
)
_NAME_LENGTH_MAX = 80
# They repeat what was signed, a session token included.
_ECHOING = frozenset({"invalidsignatureexception", "signaturedoesnotmatch"})


def refusal(
    status: int, header: Callable[[str], str | None], body: bytes, secret: str | None
) -> AdapterError:
    """The failure that a status other than 2xx stands for."""
    name = (header("x-amzn-errortype") or "").partition(":")[0][:_NAME_LENGTH_MAX]
    if name.lower() in _ECHOING:
        body = b""
    for part in _parts(secret):
        body = body.replace(part.encode(), b"***")
    error = failures.refusal(status, header, body, secret)
    request_id = failures.clean(header("x-amzn-requestid") or "", secret)[:_NAME_LENGTH_MAX]
    kind, message = _told_apart(name, _words(body), (error.kind, error.message))
    return AdapterError(
        kind,
        message,
        detail=f"{request_id} {name} {error.detail}".strip(),
        status=error.status,
        retry_after_s=error.retry_after_s,
        param=error.param if kind is K.BAD_REQUEST else None,
    )


def in_stream(name: str, message: str, secret: str | None) -> AdapterError:
    """An exception in a stream, or an error of the stream's own protocol."""
    for part in _parts(secret):
        message = message.replace(part, "***")
    words = failures.clean(message, None)
    otherwise = _FAILED
    if name.lower() == "validationexception":
        otherwise = (K.BAD_REQUEST, words or "the provider refused the request")
    kind, said = _told_apart(name, message, otherwise)
    return AdapterError(kind, said, detail=f"in the stream: {name[:_NAME_LENGTH_MAX]} {words}")


def _told_apart(
    name: str, message: str, otherwise: tuple[FailureKind, str]
) -> tuple[FailureKind, str]:
    if _NOT_SERVED.search(message):
        return _NO_MODEL
    found = _BY_NAME.get(name.lower(), otherwise)
    if found[0] is K.BAD_REQUEST and TOO_LONG.search(message):
        return K.CONTEXT_LENGTH, found[1]
    return found


def _parts(secret: str | None) -> list[str]:
    """A key as a whole, and its parts: an error may repeat any of them."""
    return [part for part in (secret, *(secret or "").split(":")) if part]


def _words(body: bytes) -> str:
    """What an error body says; some of Amazon's front ends write ``Message``."""
    try:
        said = msgspec.json.decode(body)
    except failures.DECODE_ERRORS:
        return ""
    if not isinstance(said, dict):
        return ""
    message = said.get("message") or said.get("Message")
    return message if isinstance(message, str) else ""
