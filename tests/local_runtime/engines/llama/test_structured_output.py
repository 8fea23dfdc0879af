"""Answers that keep to a JSON schema, from the real starter model."""

import json
from typing import Any

import pytest

from local_runtime.engines.llama.engine import LlamaEngine
from tests.local_runtime.calls import reason_of, text_of
from tests.local_runtime.engines.llama.driving import failure, one

SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 1, "maximum": 120},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
            "nested": {
                "type": "object",
                "properties": {"ok": {"type": "boolean"}, "none": {"type": "null"}},
                "required": ["ok", "none"],
            },
        },
        "required": ["name", "age", "tags", "nested"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "number", "minimum": -2, "maximum": 2}, "maxItems": 4},
    {"anyOf": [{"type": "integer", "minimum": 10, "maximum": 99}, {"type": "null"}]},
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "v": {"type": "integer", "minimum": 0, "maximum": 9},
                    "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]},
                },
                "required": ["v", "next"],
            },
            "leaf": {"const": {"é": ['"quoted"', "\n", True]}},
        },
        "$ref": "#/$defs/node",
    },
    {"type": "object", "properties": {"d": {"type": "string", "format": "date-time"}}},
    {
        "oneOf": [
            {"type": "object", "properties": {"k": {"const": "x"}}, "required": ["k"]},
            {"type": "object", "properties": {"k": {"const": "y"}}, "required": ["k"]},
        ]
    },
]


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_schemas_are_kept(engine: LlamaEngine, number: int) -> None:
    asked = {"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMAS[number]}}
    for seed in range(2):
        events = one(
            engine,
            "Give me an example as JSON.",
            response_format=asked,
            max_tokens=200,
            temperature=1.3,
            seed=seed,
        )
        assert reason_of(events) == "stop"
        value = json.loads(text_of(events))
        if number == 0:
            assert list(value) == ["name", "age", "tags", "nested"]
            assert len(value["name"]) <= 12 and 1 <= value["age"] <= 120
            assert set(value["tags"]) <= {"a", "b"} and 1 <= len(value["tags"]) <= 3
            assert value["nested"]["ok"] in {True, False} and value["nested"]["none"] is None
        elif number == 1:
            assert len(value) <= 4 and all(-2 <= item <= 2 for item in value)
        elif number == 2:
            assert value is None or 10 <= value <= 99
        elif number == 3:
            assert value["next"] in (None, {"é": ['"quoted"', "\n", True]})
        elif number == 5:
            assert value["k"] in {"x", "y"}


def test_json_object(engine: LlamaEngine) -> None:
    asked = {"type": "json_object"}
    events = one(engine, "An empty JSON object.", response_format=asked, max_tokens=150, seed=4)
    text = text_of(events)
    assert text.lstrip().startswith("{")
    if reason_of(events) == "stop":
        assert isinstance(json.loads(text), dict)


def test_a_schema_that_llama_cpp_refuses_is_not_ignored(engine: LlamaEngine) -> None:
    """A value that contains itself without end: there is no text of it."""
    schema = {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}
    asked = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    assert failure(one(engine, response_format=asked)).param == "response_format"
