"""Schemas as grammars: numbers exactly within bounds, and nothing that cannot be guaranteed."""

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.grammar import grammar_of
from local_runtime.engines.llama.grammar_numbers import number_rule


def as_regex(body: str) -> re.Pattern[str]:
    """A rule body without references, as a regular expression: literals, classes, groups."""
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\](?:\{[\d,]+\})?|[()|?*+]', body)
    return re.compile(
        "".join(re.escape(token[1:-1]) if token.startswith('"') else token for token in tokens)
    )


BOUNDS = st.integers(-(10**6), 10**6) | st.integers(-120, 120)


@given(BOUNDS, BOUNDS, st.integers(-(10**6) - 5, 10**6 + 5) | st.integers(-130, 130))
def test_whole_numbers_are_exactly_those_within(low: int, high: int, value: int) -> None:
    assume(low <= high)
    body = number_rule({"minimum": low, "maximum": high}, whole=True)
    assert body is not None
    matches = as_regex(body).fullmatch(str(value)) is not None
    assert matches == (low <= value <= high)


@given(BOUNDS, st.integers(-(10**6), 10**6))
def test_one_sided_whole_numbers(bound: int, value: int) -> None:
    above = number_rule({"exclusiveMinimum": bound}, whole=True)
    below = number_rule({"exclusiveMaximum": bound}, whole=True)
    assert above is not None and below is not None
    assert (as_regex(above).fullmatch(str(value)) is not None) == (value > bound)
    assert (as_regex(below).fullmatch(str(value)) is not None) == (value < bound)


@given(
    st.floats(-500, 500).map(lambda x: round(x, 2)),
    st.floats(-500, 500).map(lambda x: round(x, 2)),
    st.booleans(),
    st.booleans(),
    st.floats(-600, 600).map(lambda x: round(x, 3)),
)
def test_numbers_are_never_outside(
    low: float, high: float, low_open: bool, high_open: bool, value: float
) -> None:
    own = {
        "exclusiveMinimum" if low_open else "minimum": low,
        "exclusiveMaximum" if high_open else "maximum": high,
    }
    body = number_rule(own, whole=False)
    assume(body is not None)
    assert body is not None
    text = f"{value:.3f}"
    for candidate in (text, text.rstrip("0").rstrip("."), str(low), f"{high:.2f}"):
        if as_regex(body).fullmatch(candidate):
            number = float(candidate)
            assert number > low or (number == low and not low_open)
            assert number < high or (number == high and not high_open)


def test_a_unit_interval() -> None:
    body = number_rule({"minimum": 0, "maximum": 1}, whole=False)
    assert body is not None
    for text in ("0", "1", "0.5", "0.123456"):
        assert as_regex(body).fullmatch(text), text
    for text in ("1.5", "-0.5", "2", "00.5", "1.0"):
        assert not as_regex(body).fullmatch(text), text
    positive = number_rule({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, whole=False)
    assert positive is not None
    assert as_regex(positive).fullmatch("0.5")
    assert not as_regex(positive).fullmatch("0.00")


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


def test_plain_text_needs_no_grammar() -> None:
    assert grammar_of(None) is None
    assert grammar_of({"type": "text"}) is None
    assert "root ::= object" in (grammar_of({"type": "json_object"}) or "")


REFUSED: dict[str, Any] = {
    "pattern that looks ahead": {"type": "string", "pattern": "^(?=a)b$"},
    "pattern that refers back": {"type": "string", "pattern": r"^(a)\1$"},
    "pattern of another length": {"type": "string", "pattern": "^a{3}$", "maxLength": 2},
    "pattern of uneven length": {"pattern": "^(ab)*$", "minLength": 3, "maxLength": 3},
    "pattern and format": {"type": "string", "pattern": "a", "format": "date"},
    "multipleOf nothing": {"type": "integer", "multipleOf": 0},
    "multipleOf between": {"type": "integer", "multipleOf": 10, "minimum": 11, "maximum": 19},
    "uniqueItems": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
    "minProperties": {"type": "object", "minProperties": 2},
    "patternProperties": {"patternProperties": {"a": {}, "b": {}}},
    "patternProperties beside": {"properties": {"a": {}}, "patternProperties": {"a": {}}},
    "not": {"not": {"type": "string"}},
    "if": {"if": {}, "then": {}},
    "contains": {"type": "array", "contains": {"type": "null"}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "allOf without a value": {"allOf": [{"type": "object"}, {"type": "array"}]},
    "oneOf that overlaps": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    "oneOf of one number": {"oneOf": [{"const": 1}, {"const": 1.0}]},
    "oneOf of open objects": {
        "oneOf": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]
    },
    "unknown type": {"type": "text"},
    "unknown format": {"type": "string", "format": "regex"},
    "remote reference": {"$ref": "https://example.com/schema.json"},
    "dangling reference": {"$ref": "#/$defs/none"},
    "endless reference": {"oneOf": [{"$ref": "#/oneOf/0"}, {"type": "null"}]},
    "impossible bounds": {"type": "integer", "minimum": 5, "maximum": 4},
    "impossible length": {"type": "string", "minLength": 5, "maxLength": 4},
    "too many items": {"type": "array", "minItems": 10**9},
    "too many lengths": {
        "prefixItems": [
            {"type": "string", "minLength": 1, "maxLength": 1901 + n} for n in range(40)
        ]
    },
    "empty enum": {"enum": []},
    "enum of another type": {"type": "string", "enum": [1]},
    "required but forbidden": {
        "type": "object",
        "properties": {},
        "required": ["a"],
        "additionalProperties": False,
    },
    "required and false": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "false": False,
    "a number for a schema": {"type": "object", "properties": {"a": 1}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_guaranteed_is_refused(name: str) -> None:
    with pytest.raises(RequestRefused) as caught:
        grammar_of(schema_format(REFUSED[name]))
    assert caught.value.param == "response_format"


def test_a_refusal_names_the_place() -> None:
    schema = {
        "$defs": {"a/b": {"type": "array", "items": {"type": "string", "format": "regex"}}},
        "properties": {"list": {"$ref": "#/$defs/a~1b"}},
    }
    with pytest.raises(RequestRefused, match="at #/properties/list/items: the format 'regex'"):
        grammar_of(schema_format(schema))


@pytest.mark.parametrize(
    "response_format",
    [{"type": "xml"}, {}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {}}],
)
def test_unknown_formats_are_refused(response_format: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused):
        grammar_of(response_format)


def test_depth_is_bounded() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(RequestRefused, match="nested"):
        grammar_of(schema_format(schema))


def test_literals_are_escaped() -> None:
    text = grammar_of(schema_format({"enum": ['a"b\\c\nd', "é🌱"]})) or ""
    assert r'"\"a\\\"b\\\\c\\nd\""' in text
    assert '"\\"é🌱\\""' in text
