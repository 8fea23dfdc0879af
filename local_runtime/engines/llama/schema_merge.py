"""JSON Schemas without references and combinations: several plain ones, of which a value fits one.

``$ref``, ``allOf``, ``anyOf`` and ``oneOf`` may stand beside each other and beside other keywords;
all must hold at once, so what they say is merged, keyword by keyword. What cannot be merged exactly
is refused.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

Flat = dict[str, Any]
Refuse = Callable[[str], NoReturn]

DEPTH_MAX = 32
ALTERNATIVES_MAX = 256
ANNOTATIONS = frozenset(
    {
        "$anchor", "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated",
        "description", "discriminator", "example", "examples", "readOnly", "strict", "title",
        "writeOnly",
    }
)  # fmt: skip
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_LARGEST = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_SMALLEST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_OBJECT = {"properties", "additionalProperties", "required", "patternProperties"}
_ARRAY = {"items", "prefixItems"}


def flatten(schema: Any, root: Any, refuse: Refuse, depth: int = 0) -> list[Flat]:
    """The plain schemas; none where no value fits. ``refuse`` is called for what is no schema."""
    if depth > DEPTH_MAX:
        refuse("the schema refers to itself without an end, or is nested too deep.")
    if isinstance(schema, bool):
        return [{}] if schema else []
    if not isinstance(schema, dict):
        refuse("a schema must be an object.")
    own = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    combined: list[list[Flat]] = []
    reference = own.pop("$ref", None)
    if reference is not None:
        combined.append(flatten(target_of(reference, root, refuse), root, refuse, depth + 1))
    for part in _schemas_of(own, "allOf", refuse):
        combined.append(flatten(part, root, refuse, depth + 1))
    for name in ("anyOf", "oneOf"):
        if name not in own:
            continue
        options = _schemas_of(own, name, refuse)
        flats = [flatten(option, root, refuse, depth + 1) for option in options]
        if name == "oneOf":
            _refuse_overlaps(flats, root, refuse)
        combined.append([flat for option in flats for flat in option])
    found = [_plain(own, refuse)]
    for options in combined:
        found = [
            merged
            for flat in found
            for option in options
            if (merged := merge(flat, option, refuse)) is not None
        ]
        if len(found) > ALTERNATIVES_MAX:
            refuse("its combinations are too many.")
    return found


def target_of(reference: Any, root: Any, refuse: Refuse) -> Any:
    """What ``$ref`` points to, inside the schema."""
    if not isinstance(reference, str):
        refuse("$ref must be a string.")
    if not (reference == "#" or reference.startswith("#/")):
        refuse(f"$ref {reference[:64]!r} does not point into the schema.")
    target: Any = root
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list) and name.isascii() and name.isdigit() and len(name) < 6:
            target = target[int(name)] if int(name) < len(target) else None
        elif isinstance(target, dict) and name in target:
            target = target[name]
        else:
            refuse(f"$ref {reference[:64]!r} points to nothing.")
    return target


def merge(one: Flat, other: Flat, refuse: Refuse) -> Flat | None:
    """A schema that holds where both hold; None where nothing can."""
    merged = {**one, **other}
    for key in one.keys() & other.keys():
        mine, theirs = one[key], other[key]
        if key in _LARGEST or key in _SMALLEST:
            if not (_is_number(mine) and _is_number(theirs)):
                refuse(f"{key} must be a number.")
            merged[key] = max(mine, theirs) if key in _LARGEST else min(mine, theirs)
        elif key == "type":
            merged[key] = _types_in_both(mine, theirs)
            if not merged[key]:
                return None
        elif key == "enum":
            merged[key] = [value for value in mine if _among(value, theirs)]
            if not merged[key]:
                return None
        elif key not in _OBJECT | _ARRAY:
            merged[key] = _one_for_both(key, mine, theirs, refuse)
    if _OBJECT & one.keys() and _OBJECT & other.keys():
        merged |= _merged_objects(one, other, refuse)
    if _ARRAY & one.keys() and _ARRAY & other.keys():
        merged |= _merged_arrays(one, other)
    return merged


def _one_for_both(key: str, mine: Any, theirs: Any, refuse: Refuse) -> Any:
    if key == "multipleOf" and type(mine) is type(theirs) is int and mine and theirs:
        return math.lcm(mine, theirs)
    if key == "uniqueItems":
        return bool(mine) or bool(theirs)
    if mine != theirs:
        refuse(f"two different values of {key[:64]!r} at once are not supported.")
    return mine


def _merged_objects(one: Flat, other: Flat, refuse: Refuse) -> Flat:
    if "patternProperties" in one or "patternProperties" in other:
        refuse("patternProperties beside other schemas of an object are not supported.")
    mine, theirs = one.get("properties", {}), other.get("properties", {})
    more = [schema.get("additionalProperties", True) for schema in (one, other)]
    result: Flat = {
        "properties": {
            name: both(mine.get(name, more[0]), theirs.get(name, more[1]))
            for name in [*mine, *(name for name in theirs if name not in mine)]
        },
        "required": list(dict.fromkeys([*one.get("required", []), *other.get("required", [])])),
    }
    if "additionalProperties" in one or "additionalProperties" in other:
        result["additionalProperties"] = both(*more)
    return result


def _merged_arrays(one: Flat, other: Flat) -> Flat:
    fixed = [schema.get("prefixItems", []) for schema in (one, other)]
    items = [schema.get("items", True) for schema in (one, other)]
    result: Flat = {"items": both(*items)}
    count = max(map(len, fixed))
    if count:
        result["prefixItems"] = [
            both(*(f[at] if at < len(f) else i for f, i in zip(fixed, items, strict=True)))
            for at in range(count)
        ]
    return result


def both(one: Any, other: Any) -> Any:
    """The schema that asks for both."""
    if one is True or one == other:
        return other
    if other is True:
        return one
    return False if one is False or other is False else {"allOf": [one, other]}


def _plain(own: Flat, refuse: Refuse) -> Flat:
    """Checked in form, ``const`` and ``type`` in one way of writing each."""
    flat = {key: value for key, value in own.items() if key not in {"allOf", "anyOf", "oneOf"}}
    if "const" in flat:
        value = flat.pop("const")
        if "enum" in flat and not _among(value, flat["enum"]):
            refuse("const is not among the values of enum.")
        flat["enum"] = [value]
    if not isinstance(flat.get("enum", []), list):
        refuse("enum must be a list.")
    if flat.pop("nullable", False) is True and "type" in flat:  # OpenAPI 3.0
        types = flat["type"] if isinstance(flat["type"], list) else [flat["type"]]
        flat["type"] = [*types, "null"]
    if "type" in flat:
        types = flat["type"] if isinstance(flat["type"], list) else [flat["type"]]
        if not types or not all(name in TYPES for name in types if isinstance(name, str)):
            refuse(f"type must be among {', '.join(TYPES)}.")
        if not all(isinstance(name, str) for name in types):
            refuse("type must be a string, or a list of strings.")
        flat["type"] = list(dict.fromkeys(types))
    if not isinstance(flat.get("properties", {}), dict):
        refuse("properties must be an object.")
    required = flat.get("required", [])
    if not (isinstance(required, list) and all(isinstance(name, str) for name in required)):
        refuse("required must be a list of names.")
    if isinstance(flat.get("items"), list):  # before draft 2020-12
        flat["prefixItems"] = flat["items"]
        flat["items"] = flat.pop("additionalItems", True)
    if not isinstance(flat.get("prefixItems", []), list):
        refuse("prefixItems must be a list.")
    return flat


def _schemas_of(own: Flat, name: str, refuse: Refuse) -> list[Any]:
    schemas = own.get(name, [])
    if not isinstance(schemas, list) or (name in own and not schemas):
        refuse(f"{name} must be a list of schemas.")
    return schemas


def _types_in_both(mine: list[str], theirs: list[str]) -> list[str]:
    found = [name for name in mine if name in theirs]
    for one, other in ((mine, theirs), (theirs, mine)):
        if "integer" in one and "number" in other and "integer" not in found:
            found.append("integer")
    return found


def _refuse_overlaps(options: list[list[Flat]], root: Any, refuse: Refuse) -> None:
    """For oneOf: it is anyOf where no value fits two of them, which must be plain to see."""
    for at, flats in enumerate(options):
        for others in options[:at]:
            if not all(disjoint(flat, other, root, refuse) for flat in flats for other in others):
                refuse("oneOf is supported only where the schemas exclude each other.")


def disjoint(one: Flat, other: Flat, root: Any, refuse: Refuse, depth: int = 0) -> bool:
    """Whether no value fits both, by what is plain to see."""
    if depth > DEPTH_MAX:
        return False
    if "enum" in one and "enum" in other:
        return not any(_among(value, other["enum"]) for value in one["enum"])
    kinds = [_kinds_of(flat) for flat in (one, other)]
    if not kinds[0] & kinds[1]:
        return True
    if kinds[0] & kinds[1] != {"object"}:
        return False
    for mine, theirs in ((one, other), (other, one)):
        known = theirs.get("properties", {})
        closed = theirs.get("additionalProperties") is False and "patternProperties" not in theirs
        if closed and any(name not in known for name in mine.get("required", [])):
            return True
    for name in set(one.get("required", [])) & set(other.get("required", [])):
        values = [flat.get("properties", {}).get(name, True) for flat in (one, other)]
        options = [flatten(value, root, refuse, depth + 1) for value in values]
        if all(disjoint(a, b, root, refuse, depth + 1) for a in options[0] for b in options[1]):
            return True
    return False


def _kinds_of(flat: Flat) -> set[str]:
    """Types that its values can have; numbers are one kind, whole or not."""
    names = [_kind(value) for value in flat["enum"]] if "enum" in flat else flat.get("type", TYPES)
    return {"number" if name == "integer" else name for name in names}


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", dict: "object", list: "array", str: "string", type(None): "null"}
    return kinds.get(type(value), "number")


def _among(value: Any, values: list[Any]) -> bool:
    """Equal as JSON: true is not 1, and 1.0 is."""
    text = _canonical(value)
    return any(_canonical(other) == text for other in values)


def _canonical(value: Any) -> str:
    def plain(part: Any) -> Any:
        if isinstance(part, float) and part.is_integer():
            return int(part)
        if isinstance(part, list):
            return [plain(item) for item in part]
        if isinstance(part, dict):
            return {key: plain(item) for key, item in part.items()}
        return part

    return json.dumps(plain(value), sort_keys=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
