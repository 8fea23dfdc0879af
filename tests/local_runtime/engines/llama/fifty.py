"""Fifty schemas as clients send them: nested, enums, numbers, arrays, references, unions."""

from typing import Any

Schema = dict[str, Any]


def thing(properties: Schema, *optional: str, **more: Any) -> Schema:
    """An object with these properties, all but ``optional`` required, and no others."""
    required = [name for name in properties if name not in optional]
    base = {"type": "object", "properties": properties, "required": required}
    return {**base, "additionalProperties": False, **more}


def word(most: int = 8) -> Schema:
    return {"type": "string", "maxLength": most}


def some(items: Schema, least: int = 0, most: int = 3) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def whole(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


COLOUR: Schema = {"type": "string", "enum": ["red", "green", "dark blue"]}
NULL: Schema = {"type": "null"}

SCHEMAS: dict[str, Schema] = {
    "person": thing({"name": word(12), "age": whole(0, 120)}),
    "optional": thing({"a": word(), "b": word(), "c": {"type": "boolean"}}, "a", "c"),
    "all optional": thing({"a": whole(0, 9), "b": whole(0, 9), "c": whole(0, 9)}, "a", "b", "c"),
    "deep": thing({"a": thing({"b": thing({"c": thing({"d": some(some(COLOUR, 1), 1)})})})}),
    "enum of strings": COLOUR,
    "enum of kinds": {"enum": [None, True, 1, 1.5, "x", [1, {"y": "é"}], {}]},
    "enum within bounds": {"enum": [1, 5, 10, "x"], "type": "integer", "minimum": 3},
    "const": thing({"version": {"const": 3}, "kind": {"const": 'a "quote"\n'}}),
    "whole numbers": thing({"a": whole(-5, 5), "b": whole(100, 1234), "c": whole(-90, -10)}),
    "open bounds": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3},
    "unit interval": {"type": "number", "minimum": 0, "maximum": 1},
    "narrow interval": {"type": "number", "minimum": 0.15, "maximum": 0.85},
    "open interval": {"type": "number", "exclusiveMinimum": -1.5, "exclusiveMaximum": 2.5},
    "half open": {"type": "number", "exclusiveMinimum": 0, "maximum": 1000},
    "multiples": {"type": "integer", "multipleOf": 7, "minimum": 20, "maximum": 3000},
    "hundreds": some({"type": "integer", "multipleOf": 100, "minimum": 0, "maximum": 10**6}, 1),
    "quarters": {"type": "number", "multipleOf": 0.25, "minimum": -3, "maximum": 12.5},
    "cents": thing({"price": {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 99}}),
    "any whole number": thing({"n": {"type": "integer"}}),
    "int32": {"type": "integer", "format": "int32"},
    "array": some(whole(1, 6), 2, 4),
    "tuple": {
        "type": "array",
        "prefixItems": [whole(0, 9), COLOUR, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    },
    "tuple and rest": {
        "type": "array",
        "prefixItems": [COLOUR],
        "items": whole(0, 9),
        "minItems": 1,
        "maxItems": 4,
    },
    "empty array": {"type": "array", "maxItems": 0},
    "unique": {"type": "array", "items": COLOUR, "uniqueItems": True, "minItems": 2},
    "matrix": some(some({"type": "number", "minimum": -1, "maximum": 1}, 2, 2), 2, 2),
    "lengths": thing({"code": {"type": "string", "minLength": 3, "maxLength": 5}}),
    "digits": {"type": "string", "pattern": "^[0-9]{3}-[0-9]{4}$"},
    "plate": {"type": "string", "pattern": r"^[A-Z]{1,3} [A-Z]{1,2} \d{1,4}$"},
    "choice": {"type": "string", "pattern": "^(yes|no|may(be)?)$"},
    "odd characters": {"type": "string", "pattern": r'^["\\/\n]{1,4}[^a-z]{2}$'},
    "pattern and length": {"type": "string", "pattern": "^[a-z]+(_[a-z]+)?$", "maxLength": 9},
    "anchored once": {"type": "string", "pattern": "^ab{2,4}"},
    "date": thing({"d": {"type": "string", "format": "date"}}),
    "date and time": thing({"at": {"type": "string", "format": "date-time"}}),
    "uuid": {"type": "string", "format": "uuid"},
    "addresses": thing(
        {
            "four": {"type": "string", "format": "ipv4"},
            "six": {"type": "string", "format": "ipv6"},
            "mail": {"type": "string", "format": "email", "maxLength": 30},
        }
    ),
    "duration": {"type": "string", "format": "duration"},
    "link": {"type": "string", "format": "uri", "maxLength": 40},
    "nullable": thing({"a": {"type": ["string", "null"], "maxLength": 5}, "b": {"type": "null"}}),
    "union": {"anyOf": [whole(10, 99), NULL, thing({"v": COLOUR})]},
    "union beside": {
        "type": "object",
        "properties": {"id": whole(1, 9)},
        "required": ["id"],
        "anyOf": [
            {"properties": {"a": whole(0, 1)}, "required": ["a"]},
            {"properties": {"b": COLOUR}, "required": ["b"]},
        ],
    },
    "told apart": {
        "oneOf": [
            thing({"kind": {"const": "circle"}, "radius": whole(1, 9)}),
            thing({"kind": {"const": "box"}, "sides": some(whole(1, 9), 2, 2)}),
        ]
    },
    "merged": {
        "$defs": {"base": {"properties": {"id": {"type": "integer"}}, "required": ["id"]}},
        "allOf": [
            {"$ref": "#/$defs/base"},
            {"type": "object", "properties": {"id": {"minimum": 5}, "x": COLOUR}},
            {"properties": {"id": {"maximum": 8}}, "additionalProperties": False},
        ],
        "type": "object",
        "properties": {"x": {}, "id": {}},
    },
    "references": {
        "$defs": {"point": thing({"x": whole(0, 9), "y": whole(0, 9)})},
        **thing({"from": {"$ref": "#/$defs/point"}, "to": {"$ref": "#/$defs/point"}}),
    },
    "tree": {
        "$defs": {
            "leaf": thing({"leaf": {"type": "boolean"}}),
            "level 2": thing({"kids": some({"$ref": "#/$defs/leaf"}, 0, 2)}),
        },
        **thing({"kids": some({"$ref": "#/$defs/level 2"}, 1, 2)}),
    },
    "map": {
        "type": "object",
        "additionalProperties": whole(0, 9),
        "propertyNames": {"maxLength": 5},
        "maxProperties": 3,
    },
    "pattern map": {
        "type": "object",
        "patternProperties": {"^x-[a-z]{1,4}$": {"type": "boolean"}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 2,
    },
    "counted": thing({n: whole(0, 9) for n in "abcde"}, *"abcde", minProperties=2, maxProperties=3),
    "report": thing(
        {
            "title": word(16),
            "status": {"enum": ["open", "closed", None]},
            "score": {"type": "number", "minimum": 0, "maximum": 10},
            "tags": some(word(6), 1, 3),
            "lines": some(thing({"sku": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
                                 "count": whole(1, 20), "note": word(10)}, "note"), 1, 2),
        }
    ),
}  # fmt: skip

# Values may contain values of the same kind, to any depth: an answer may be cut.
RECURSIVE: dict[str, Schema] = {
    "list": {
        "$defs": {
            "node": thing({"v": whole(0, 9), "next": {"anyOf": [NULL, {"$ref": "#/$defs/node"}]}})
        },
        "$ref": "#/$defs/node",
    },
    "self": thing({"name": word(4), "children": some({"$ref": "#"}, 0, 2)}),
}
