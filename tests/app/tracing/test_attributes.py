"""No attribute but those of the list gets onto a span, and README.md tells each of them."""

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from app.tracing import attributes
from app.tracing.attributes import ATTRIBUTES, NUMBERS, TEXT_LENGTH_MAX, TEXTS, TRUTHS, allowed

README = Path(attributes.__file__).with_name("README.md").read_text(encoding="utf-8")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.text()),
)
NAMES = st.one_of(st.text(max_size=20), st.sampled_from(sorted(ATTRIBUTES)))


def test_the_table_is_the_list() -> None:
    told = re.findall(
        r"^\| `([a-z_.]+\.[a-z_.]+)` \| (?:all|request|attempt)", README, re.MULTILINE
    )
    assert sorted(told) == sorted(ATTRIBUTES)


def test_every_name_has_one_type() -> None:
    assert not TEXTS & NUMBERS | TEXTS & TRUTHS | NUMBERS & TRUTHS
    names = {v for k, v in vars(attributes).items() if k.isupper() and isinstance(v, str)}
    assert names == ATTRIBUTES


@given(st.dictionaries(NAMES, VALUES, max_size=10))
def test_nothing_else_passes(given_: dict[str, object]) -> None:
    found = allowed(given_)
    for name, value in found.items():
        if name in TEXTS:
            assert isinstance(value, str)
            assert 0 < len(value) <= TEXT_LENGTH_MAX + len("[redacted]")
        elif name in NUMBERS:
            assert type(value) in {int, float}
        else:
            assert name in TRUTHS
            assert type(value) is bool


def test_what_looks_like_a_secret_is_taken_out() -> None:
    found = allowed(
        {
            attributes.MODEL: "tp_GzNCUOgzxq_JbfmhXKBstiTGnzeRHM6RAeLdWVwPR3jRaeo",
            attributes.ERROR_TYPE: "Authorization: Bearer abcdefghijklmnopqrstuvwxyz",
            "http.request.header.authorization": "x",
            "gen_ai.input.messages": "x",
        }
    )
    assert set(found) == {attributes.MODEL, attributes.ERROR_TYPE}
    assert "JbfmhXKB" not in str(found)
    assert "abcdefghij" not in str(found)
