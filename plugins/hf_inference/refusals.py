"""HF Inference's errors, in the gateway's words.

``{"error": text or list of texts}``, with ``estimated_time`` in seconds while a model loads, and
with ``error_type`` from text-embeddings-inference (huggingface/api-inference-community
``routes.py``; huggingface/text-embeddings-inference; public issues of both and of
huggingface/transformers).
"""

import math
import re
from collections.abc import Callable

import msgspec

from plugins.contract import AdapterError, FailureKind
from plugins.http import failures

_LOADING = re.compile(r"currently loading", re.IGNORECASE)
_TOO_LONG = re.compile(r"must have less than \d+ tokens", re.IGNORECASE)
_UNKNOWN = re.compile(r"not supported by provider|does(?:n't| not) support task", re.IGNORECASE)
_TEXTS_MAX = 8


class _Body(msgspec.Struct):
    error: str | list[str] | None = None
    estimated_time: float | None = None


_decoder = msgspec.json.Decoder(_Body)


def refusal(
    status: int, header: Callable[[str], str | None], body: bytes, secret: str | None
) -> AdapterError:
    """The failure that a status other than 2xx stands for."""
    try:
        said = _decoder.decode(body)
    except failures.DECODE_ERRORS:
        return failures.refusal(status, header, body, secret)
    if said.error is None:
        return failures.refusal(status, header, body, secret)
    words = said.error if isinstance(said.error, str) else "; ".join(said.error[:_TEXTS_MAX])
    plain = msgspec.json.encode({"error": words})
    error = failures.refusal(status, header, plain, secret)
    kind, message, waits = error.kind, error.message, error.retry_after_s
    if status == 503 and (said.estimated_time is not None or _LOADING.search(words)):
        kind, message = FailureKind.LOADING, "the provider is loading the model"
        waits = _wait(said.estimated_time) if waits is None else waits
    elif kind is FailureKind.BAD_REQUEST and _TOO_LONG.search(words):
        kind = FailureKind.CONTEXT_LENGTH
    elif kind is FailureKind.BAD_REQUEST and _UNKNOWN.search(words):
        kind, message = FailureKind.NOT_FOUND, "the provider does not know the model"
    return AdapterError(
        kind,
        message,
        detail=error.detail,
        status=status,
        retry_after_s=waits,
        param=error.param if kind is FailureKind.BAD_REQUEST else None,
    )


def _wait(seconds: float | None) -> float | None:
    """Seconds to wait, at most 60; None where that is not told."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, failures.RETRY_AFTER_S_MAX)
