"""A line is a line and has the allowed fields, whatever callers and libraries hand in."""

import json
import logging
import re
import unicodedata
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.logs.fields import (
    ALWAYS,
    ERROR_LENGTH_MAX,
    FIELD_LENGTH_MAX,
    FIELDS,
    IDS,
    MESSAGE_LENGTH_MAX,
    NUMBERS,
    WORDS,
)
from app.logs.formats import CONTINUED, JsonLines, TextLines
from tests.app.logs.writing import record

README = Path(__file__).parents[3] / "app" / "logs" / "README.md"
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
names = st.sampled_from(FIELDS[4:]) | st.text(min_size=1).filter(
    lambda name: (
        name not in logging.LogRecord("", 0, "", 0, "", (), None).__dict__
        and name not in {"message", "asctime"}
    )
)


@given(st.text(), st.dictionaries(names, anything, max_size=6))
def test_a_json_line_is_one_object_of_allowed_fields(message: str, extra: dict[str, Any]) -> None:
    line = JsonLines().format(record(message, **extra))
    assert line.isascii()
    assert line.splitlines() == [line]
    said = json.loads(line)
    assert list(said)[:4] == list(ALWAYS)
    assert set(said) <= set(FIELDS)
    for name in (*IDS, *WORDS):
        assert isinstance(said.get(name, ""), str)
        assert len(said.get(name, "")) <= FIELD_LENGTH_MAX + 20
    for name in NUMBERS:
        assert type(said.get(name, 0)) in {int, float}


@given(st.text(), st.text(), st.dictionaries(names, anything, max_size=3))
def test_nobody_can_make_up_a_line_of_text(
    message: str, raised: str, extra: dict[str, Any]
) -> None:
    try:
        raise ValueError(raised)
    except ValueError:
        line = TextLines().format(record(message, **extra))
    first, *rest = line.split("\n")
    assert STAMP.match(first)
    assert rest
    assert all(each.startswith(CONTINUED) for each in rest)
    for each in (first, *rest):
        assert each.splitlines() == [each]
        assert not [c for c in each if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"}]
    line.encode("utf-8")


@pytest.mark.parametrize(
    "evil",
    [
        "x\n2026-01-01T00:00:00.000Z CRITICAL turnpike: forged",
        "x\r\n2026-01-01T00:00:00.000Z CRITICAL turnpike: forged",
        "x\u2028forged",
        "x\x85forged",
        "\x1b[2J\x1b[H",
        "\u202egnp.exe",
        "\ud800",
        "\x00",
    ],
)
def test_what_ends_a_line_or_moves_a_cursor_is_escaped(evil: str) -> None:
    for line in (TextLines().format(record("%s", evil)), JsonLines().format(record("%s", evil))):
        assert line.splitlines() == [line]
        assert "\\" in line
        assert evil not in line
    assert json.loads(JsonLines().format(record("%s", evil)))["message"] == evil


def test_text_says_fields_that_the_message_does_not() -> None:
    line = TextLines().format(record("call %s ended", "c-1", call_id="c-1", status=402, prompt="p"))
    assert line.endswith("call c-1 ended status=402")


def test_the_time_is_utc_to_the_millisecond() -> None:
    made = record("x")
    made.created = 1_772_366_400.0379
    said = json.loads(JsonLines().format(made))
    assert said["time"] == "2026-03-01T12:00:00.037Z"
    assert datetime.fromisoformat(said["time"]).timestamp() == 1_772_366_400.037
    assert TextLines().format(made).startswith("2026-03-01T12:00:00.037Z INFO turnpike.test: x")


def test_an_exception_is_one_field_of_bounded_length() -> None:
    try:
        raise OSError("y" * 100_000)
    except OSError:
        said = json.loads(JsonLines().format(record("it broke")))
    assert said["error"].startswith("Traceback (most recent call last):\n")
    assert "OSError" in said["error"]
    assert len(said["error"]) < ERROR_LENGTH_MAX + 60


def test_a_message_is_bounded_and_never_an_error() -> None:
    said = json.loads(JsonLines().format(record("z" * 100_000)))
    assert len(said["message"]) < MESSAGE_LENGTH_MAX + 60
    assert "do not fit" in json.loads(JsonLines().format(record("%d%d", "x")))["message"]

    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    assert "do not fit" in json.loads(JsonLines().format(record("%s", Hostile())))["message"]


def test_the_readme_has_a_row_for_each_field_and_file() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \|", README.read_text(), re.MULTILINE)
    files = {path.name for path in README.parent.glob("*.py")} - {"__init__.py"}
    assert rows[: len(FIELDS)] == list(FIELDS)
    assert set(rows[len(FIELDS) :]) == files
