"""The request's body: read within bounds, checked, decoded once.

msgspec checks types, ranges and unknown fields. What it leaves to us (reliability.md D6): nesting,
duplicate keys of fields that decide what a call costs, NUL, and which bytes are JSON at all.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from litestar.types import HTTPScope, Receive

from app.errors import BodyTooLarge, InvalidRequest, WrongContentType

T = TypeVar("T")
NESTING_MAX = 64
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")


async def read_json(scope: HTTPScope, receive: Receive, bytes_max: int) -> bytes:
    """The whole body of a request that says it is JSON; ``app.api.connection`` bounds its time.

    Raises WrongContentType, BodyTooLarge (before reading past the limit), InvalidRequest.
    """
    content_type = length = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == b"content-length":
            length = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise WrongContentType("Compressed request bodies are not accepted.")
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise WrongContentType("Send the body as JSON, with Content-Type: application/json.")
    if length.isdigit() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    chunks: list[bytes] = []
    size = 0
    while True:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("The client left before the body was complete.")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > bytes_max:
            raise _too_large(bytes_max)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(bytes_max: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request's body is larger than {bytes_max} bytes.")


def decode(body: bytes, decoder: msgspec.json.Decoder[T], decisive: Iterable[bytes]) -> T:
    """Decode a body; ``decisive`` are quoted keys that must not appear twice.

    Raises InvalidRequest whose ``param`` is the path to what is wrong.
    """
    if not body:
        raise InvalidRequest("The request's body is empty. Send a JSON object.")
    if body.count(b"[") + body.count(b"{") > NESTING_MAX:
        _check_nesting(body)
    if b"\\u0000" in body and _NUL.search(body):
        raise InvalidRequest("The request's body contains a NUL character.")
    try:
        decoded = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise InvalidRequest(
            "The request's body is not valid JSON.", code="invalid_json"
        ) from error
    for key in decisive:
        if body.count(key) > 1:
            _check_duplicates(body)
            break
    return decoded


def _explain(message: str) -> InvalidRequest:
    """Msgspec's message with the path apart, as OpenAI writes it: ``messages[0].role``."""
    text, _, where = message.partition(" - at `")
    path = where.removesuffix("`").removeprefix("$").lstrip(".")
    unknown = _UNKNOWN.fullmatch(text)
    if unknown:
        param = f"{path}.{unknown[1]}" if path else unknown[1]
        return InvalidRequest(
            f"Unknown parameter: {param!r}.", param=param, code="unknown_parameter"
        )
    missing = re.fullmatch(r"Object missing required field `(.*)`", text)
    if missing:
        param = f"{path}.{missing[1]}" if path else missing[1]
        return InvalidRequest(
            f"Missing required parameter: {param!r}.",
            param=param,
            code="missing_required_parameter",
        )
    about = f" for {path!r}" if path else ""
    return InvalidRequest(
        f"Invalid value{about}: {text[0].lower()}{text[1:]}.",
        param=path or None,
        code="invalid_value",
    )


def _check_nesting(body: bytes) -> None:
    depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > NESTING_MAX:
            raise InvalidRequest(
                f"The request's body is nested deeper than {NESTING_MAX} levels.",
                code="invalid_json",
            )


def _check_duplicates(body: bytes) -> None:
    """Refuse an object that names a key twice; only run when a decisive key occurs twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InvalidRequest(
                    f"The key {key!r} appears twice.", param=key, code="duplicate_key"
                )
            found[key] = value
        return found

    try:
        json.loads(body, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            "The request's body is not valid JSON.", code="invalid_json"
        ) from error
