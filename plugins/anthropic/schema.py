"""JSON schemas as Claude is held to them.

Its grammar knows a part of JSON schema and refuses the rest; objects have no further properties.
What it does not know is written into the description, where the model reads it, as Anthropic's own
SDKs do (anthropics/anthropic-sdk-python, ``lib/_parse/_transform.py``).
"""

from typing import Any

import msgspec

from plugins.chat import ChatRequest, Object
from plugins.contract import AdapterError, FailureKind

_DEPTH_MAX = 64
_KEPT = frozenset({"type", "enum", "const", "title", "default", "required", "$ref"})
_FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email"),
        *("hostname", "uri", "ipv4", "ipv6", "uuid"),
    }
)
_ENCODER = msgspec.json.Encoder(order="sorted")


def wanted(request: ChatRequest) -> tuple[str, Object] | None:
    """Name and schema that the answer must follow, None where it may be any text.

    Raises AdapterError (BAD_REQUEST) for other forms of answer: neither provider promises JSON
    without a schema.
    """
    said = request.response_format
    if not isinstance(said, dict) or said.get("type") == "text":
        return None
    inner = said.get("json_schema")
    if said.get("type") != "json_schema" or not isinstance(inner, dict):
        raise _refused("response_format: this provider needs a json_schema to promise JSON")
    schema, name = inner.get("schema"), inner.get("name")
    if not isinstance(schema, dict):
        raise _refused("response_format.json_schema.schema: missing")
    return name if isinstance(name, str) else "answer", schema


def relaxed(schema: Object, param: str) -> Object:
    """The schema with only what the grammar knows. Raises AdapterError (BAD_REQUEST) for one of
    ``param`` that is nested too deeply."""
    try:
        return _relaxed(schema, 0)
    except RecursionError as error:
        raise _refused(f"{param}: the JSON schema is nested too deeply", param) from error


def _relaxed(schema: Object, depth: int) -> Object:
    if depth > _DEPTH_MAX:
        raise RecursionError
    out: Object = {}
    unknown: Object = {}
    for key, value in schema.items():
        if not _known(key, value, out, depth):
            unknown[key] = value
    if out.get("type") == "object" or "properties" in out:
        out["additionalProperties"] = False
        out.setdefault("properties", {})
    if unknown:
        words = ", ".join(f"{key}: {_ENCODER.encode(unknown[key]).decode()}" for key in unknown)
        told = out.get("description")
        out["description"] = f"{told}\n\n{{{words}}}" if told else f"{{{words}}}"
    return out


def _known(key: str, value: Any, out: Object, depth: int) -> bool:
    """Put a key that the grammar knows into ``out``; false for any other."""
    if key in _KEPT or (key == "description" and isinstance(value, str)):
        out[key] = value
    elif key in ("properties", "$defs", "definitions") and isinstance(value, dict):
        out[key] = {name: _inner(each, depth) for name, each in value.items()}
    elif key in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
        out["anyOf" if key == "oneOf" else key] = [_inner(each, depth) for each in value]
    elif key == "items" and isinstance(value, dict):
        out[key] = _inner(value, depth)
    elif (key == "format" and value in _FORMATS) or (key == "minItems" and value in (0, 1)):
        out[key] = value
    else:
        return key in ("additionalProperties", "$schema", "$id")
    return True


def _inner(schema: Any, depth: int) -> Any:
    return _relaxed(schema, depth + 1) if isinstance(schema, dict) else schema


def _refused(message: str, param: str = "response_format") -> AdapterError:
    return AdapterError(FailureKind.BAD_REQUEST, message, param=param)
