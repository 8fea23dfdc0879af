"""A strict judge of JSON values under a schema, written from the specification and not from ours.

It knows every keyword that the tests use and raises for any other.
"""

import math
import re
from decimal import Decimal
from typing import Any

_NOTES = {"$defs", "$schema", "title", "description", "default", "examples", "$id", "$comment"}
_FORMATS = {
    "date": r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
    "time": r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": r"(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])(\.(\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])){3}",
    "ipv6": r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
    "email": r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+",
    "hostname": r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*",
    "uri": r"https?://\S+",
    "duration": r"P(?!$)(\d+W|(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?)",
}


def same(one: Any, other: Any) -> bool:
    """Equal as JSON."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def valid(value: Any, schema: Any, root: Any = None) -> bool:
    """Whether the value fits."""
    root = schema if root is None else root
    if isinstance(schema, bool):
        return schema
    return all(_holds(key, wanted, value, schema, root) for key, wanted in schema.items())


def _holds(key: str, wanted: Any, value: Any, schema: dict[str, Any], root: Any) -> bool:
    if key in _NOTES:
        return True
    for rules in (_for_any, _for_numbers, _for_strings, _for_arrays, _for_objects):
        verdict = rules(key, wanted, value, schema, root)
        if verdict is not None:
            return verdict
    raise AssertionError(f"the judge does not know {key}")


def _for_any(key: str, wanted: Any, value: Any, schema: Any, root: Any) -> bool | None:
    match key:
        case "type":
            return any(_is(value, n) for n in (wanted if isinstance(wanted, list) else [wanted]))
        case "enum":
            return any(same(value, other) for other in wanted)
        case "const":
            return same(value, wanted)
        case "$ref":
            target = root
            for step in wanted.split("/")[1:]:
                target = target[step]
            return valid(value, target, root)
        case "allOf":
            return all(valid(value, part, root) for part in wanted)
        case "anyOf":
            return any(valid(value, part, root) for part in wanted)
        case "oneOf":
            return sum(valid(value, part, root) for part in wanted) == 1
    return None


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) or name == "boolean":
        return isinstance(value, bool) and name == "boolean"
    if name == "integer":
        return isinstance(value, (int, float)) and math.isfinite(value) and value == int(value)
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "null": type(None)}
    return isinstance(value, kinds.get(name, (int, float)))


def _for_numbers(key: str, wanted: Any, value: Any, schema: Any, root: Any) -> bool | None:
    number = _is(value, "number")
    match key:
        case "minimum":
            return not number or bool(value >= wanted)
        case "maximum":
            return not number or bool(value <= wanted)
        case "exclusiveMinimum":
            return not number or value > wanted
        case "exclusiveMaximum":
            return not number or value < wanted
        case "multipleOf":
            return not number or Decimal(str(value)) % Decimal(str(wanted)) == 0
    return None


def _for_strings(key: str, wanted: Any, value: Any, schema: Any, root: Any) -> bool | None:
    text = isinstance(value, str)
    match key:
        case "minLength":
            return not text or len(value) >= wanted
        case "maxLength":
            return not text or len(value) <= wanted
        case "pattern":
            return not text or re.search(wanted, value) is not None
        case "format":
            return not text or re.fullmatch(_FORMATS[wanted], value) is not None
    return None


def _for_arrays(key: str, wanted: Any, value: Any, schema: Any, root: Any) -> bool | None:
    if key not in {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}:
        return None
    if not isinstance(value, list):
        return True
    fixed = schema.get("prefixItems", [])
    match key:
        case "items":
            return all(valid(item, wanted, root) for item in value[len(fixed) :])
        case "prefixItems":
            return all(valid(item, part, root) for item, part in zip(value, fixed, strict=False))
        case "minItems":
            return bool(len(value) >= wanted)
        case "maxItems":
            return bool(len(value) <= wanted)
    pairs = [(a, b) for at, a in enumerate(value) for b in value[:at]]
    return not wanted or not any(same(a, b) for a, b in pairs)


def _for_objects(key: str, wanted: Any, value: Any, schema: Any, root: Any) -> bool | None:
    if not isinstance(value, dict):
        objects = {"properties", "required", "additionalProperties", "patternProperties"}
        counts = {"minProperties", "maxProperties", "propertyNames"}
        return True if key in objects | counts else None
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    match key:
        case "properties":
            return all(valid(value[n], part, root) for n, part in wanted.items() if n in value)
        case "required":
            return all(name in value for name in wanted)
        case "patternProperties":
            return all(
                valid(item, part, root)
                for pattern, part in wanted.items()
                for name, item in value.items()
                if re.search(pattern, name)
            )
        case "additionalProperties":
            return all(
                valid(item, wanted, root)
                for name, item in value.items()
                if name not in named and not any(re.search(p, name) for p in patterns)
            )
        case "propertyNames":
            return all(valid(name, wanted, root) for name in value)
        case "minProperties":
            return bool(len(value) >= wanted)
        case "maxProperties":
            return bool(len(value) <= wanted)
    return None
