"""Refusals in forms that several of these providers share, in the gateway's words."""

import re
from typing import Any

import msgspec

from plugins.contract import AdapterError, FailureKind, Usage
from plugins.http import failures
from plugins.queued.work import Reply

_OFFENDS = re.compile(
    r"\bnsfw\b|flagged as sensitive|\bE005\b|content.{0,3}(policy|moderat|filter)|moderated"
    r"|safety (system|filter|checker)|sensitive (content|information)",
    re.IGNORECASE,
)
POLICY_TYPES = frozenset({"content_policy_violation"})


class _Fault(msgspec.Struct):
    """One entry of FastAPI's list of validation errors; fal's model errors have the same form."""

    msg: str = ""
    type: str = ""
    loc: list[str | int] = []


class _Body(msgspec.Struct):
    detail: list[_Fault]


_decoder = msgspec.json.Decoder(_Body)


def offends(words: str) -> bool:
    """Whether a provider's words say that it takes offence at the content."""
    return bool(_OFFENDS.search(words[:4096]))


def moderated(words: str = "", key: str | None = None, usage: Usage | None = None) -> AdapterError:
    """The provider's policy forbids what was asked for, or what came of it."""
    said = failures.clean(words, key)
    message = "the provider's moderation refused the content"
    return AdapterError(
        FailureKind.REFUSED, f"{message}: {said}"[:512] if said else message, usage=usage
    )


def bad_input(words: str, key: str | None, param: str | None = None) -> AdapterError:
    """The model refused its input: the caller's fault, so the caller is told."""
    said = failures.clean(words, key)
    return AdapterError(
        FailureKind.BAD_REQUEST, said or "the provider refused the request", param=param
    )


def failed(words: object, key: str | None, usage: Usage | None = None) -> AdapterError:
    """The work itself failed."""
    said = words if isinstance(words, str) else "" if words is None else str(words)
    if offends(said):
        return moderated(said, key, usage)
    return AdapterError(
        FailureKind.UPSTREAM,
        "the provider could not do the work",
        detail=failures.clean(said, key),
        usage=usage,
    )


def ended(how: str, usage: Usage | None = None) -> AdapterError:
    """The provider ended the work without an answer, and not because we asked it to."""
    return AdapterError(
        FailureKind.UPSTREAM, "the provider gave the work up", detail=f"status {how}", usage=usage
    )


def of_validation(reply: Reply, key: str | None, fields: dict[str, str]) -> AdapterError | None:
    """A list of validation errors as one failure; None where the body is none.

    ``fields`` gives the gateway's name of a parameter for the provider's.
    """
    try:
        faults = _decoder.decode(reply.body).detail
    except failures.DECODE_ERRORS:
        return None
    if not faults:
        return None
    words = "; ".join(_told(fault) for fault in faults[:4])
    if any(fault.type in POLICY_TYPES for fault in faults):
        return moderated(words, key)
    named = (fields[part] for part in faults[0].loc if isinstance(part, str) and part in fields)
    error = bad_input(words, key, next(named, None))
    error.status = reply.status
    return error


def _told(fault: _Fault) -> str:
    place = ".".join(str(part) for part in fault.loc if part != "body")
    return f"{place}: {fault.msg}" if place else fault.msg


def plain(reply: Reply, key: str | None) -> AdapterError:
    """A refusal by its status, for all that a provider has no form of its own for."""
    return failures.refusal(reply.status, reply.header, reply.body, key)


def decoded(decoder: "msgspec.json.Decoder[Any]", reply: Reply, key: str | None) -> Any:
    """A body; AdapterError (PROTOCOL) for one that is not in the provider's format."""
    try:
        return decoder.decode(reply.body)
    except failures.DECODE_ERRORS as error:
        said = failures.clean(reply.body[:1024].decode("utf-8", "replace"), key)
        raise AdapterError(
            FailureKind.PROTOCOL,
            "the provider's answer cannot be read",
            detail=f"{str(error)[:120]}: {said}",
        ) from error
