"""Patterns as grammars: every text matches, and texts that match are not all lost."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.llama.grammar_regex import PatternRefused, pattern_rule
from tests.local_runtime.engines.llama.writing import Writer

PIECES = st.sampled_from(
    ["a", "-", "[a-c]", "[^x]", r"\d", r"\W", r"\S", ".", "(ab|c)", "(?:x|yz)", r"\.", '"', r"\\",
     "[\"'/]", "é", r"\t", "(a(b|c){2})"]
)  # fmt: skip
TIMES = st.sampled_from(["", "", "?", "*", "+", "{2}", "{1,3}", "{0,2}?"])
PATTERNS = st.lists(st.tuples(PIECES, TIMES), min_size=1, max_size=5).map(
    lambda parts: "^" + "".join(piece + times for piece, times in parts) + "$"
)


def texts_of(body: str, count: int = 12) -> list[str]:
    writer = Writer(rf'root ::= "\"" {body} "\""')
    return [json.loads(writer.text(seed)) for seed in range(count)]


@given(PATTERNS)
def test_texts_match(pattern: str) -> None:
    for text in texts_of(pattern_rule(pattern)):
        assert re.search(pattern, text), (pattern, text)


@given(PATTERNS, st.integers(0, 8), st.integers(0, 12))
def test_texts_have_the_lengths(pattern: str, least: int, most: int) -> None:
    try:
        body = pattern_rule(pattern, least, most)
    except PatternRefused:
        return
    for text in texts_of(body):
        assert re.search(pattern, text) and least <= len(text) <= most


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [("^[a-z]+$", 3, 5), ("^(ab)*$", 4, 9), (r"^\w+@\w+\.(com|org)$", 0, 20), ("^a*b*$", 2, 4)],
)
def test_lengths_are_narrowed_and_not_refused(pattern: str, least: int, most: int) -> None:
    assert all(least <= len(text) <= most for text in texts_of(pattern_rule(pattern, least, most)))


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)", "(?<n>a)", r"(a)\1", r"\bword\b", "a^b", "a$b", "a**", "*a", "(a", "a)", "[z-a]",
     "[]", "a{3,2}", "a{5000}", "a{", "a" * 3000, "(" * 40 + ")" * 40, r"\p{L}", "[^\\D]", "a\\",
     "\x01", r"\x1"]
)  # fmt: skip
def test_the_rest_is_refused(pattern: str) -> None:
    with pytest.raises(PatternRefused):
        pattern_rule(pattern)
