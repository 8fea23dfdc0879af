"""All mistakes of a file at once: each with its place and line, and none that only follows."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.config import Config, parse
from app.config_survey import survey, survey_file
from app.errors import ConfigError
from tests.app.configurations import raw_configurations

MANY = """[server]
hots = "x"
port = "a"

[tiers.gold]
monthly_credit_usd = 3
per = "seat"

[[providers]]
id = "a"
plugn = "openai_compatible"

[[providers]]
id = "b"
plugin = "openai_compatible"
[[providers.models]]
id = "m"
[[providers.models]]
id = "m"
price = { input = 3, output = "1" }
[[providers.models]]
id = 3
free = true
[[providers.models]]
id = "m"
free = true

[[providers]]
id = "b"
plugin = "echo"
[routing.aliases]
"gpt-4.1" = 4
"""


def told(text: str) -> list[tuple[int | None, str, str]]:
    from app.config_lines import lines_of

    found = survey(tomllib.loads(text), lines_of(text))
    return [(found.line_of(fault.steps), fault.path, fault.sort) for fault in found.faults]


def test_every_mistake_is_told_with_its_own_line() -> None:
    assert told(MANY) == [
        (2, "server.hots", "unknown"),
        (3, "server.port", "wrong"),
        (6, "tiers.gold.monthly_credit_usd", "wrong"),
        (7, "tiers.gold.per", "rule"),
        (11, "providers[0].plugn", "unknown"),
        (16, "providers[1].models[0].price", "rule"),
        (19, "providers[1].models[1].id", "rule"),
        (20, "providers[1].models[1].price.input", "wrong"),
        (22, "providers[1].models[2].id", "wrong"),
        (25, "providers[1].models[3].id", "rule"),
        (29, "providers[2].id", "rule"),
        (32, "routing.aliases.gpt-4.1", "wrong"),
    ]


def test_the_nearest_known_key_is_named() -> None:
    (fault,) = survey(tomllib.loads("[server]\nhots = 1")).faults
    assert "did you mean server.host?" in fault.text
    (fault,) = survey(tomllib.loads("[local.hub]\nendpont = 'x'")).faults
    assert "did you mean local.hub.endpoint?" in fault.text
    (fault,) = survey(tomllib.loads("[server]\nzzzz = 1")).faults
    assert "did you mean" not in fault.text


def test_what_only_follows_is_left_unsaid() -> None:
    # Without its misspelt plugin the provider has none; without its price the model has none.
    text = '[[providers]]\nid = "a"\nplugn = "echo"\n[[providers.models]]\nid = "m"\nprce = {}\n'
    assert [path for _, path, _ in told(text)] == [
        "providers[0].plugn",
        "providers[0].models[0].prce",
    ]
    text = '[[providers]]\nid = "a"\nplugin = "echo"\n[[providers.models]]\nid = "m"\nprice = 3\n'
    assert [path for _, path, _ in told(text)] == ["providers[0].models[0].price"]


def test_what_is_right_stays() -> None:
    found = survey(tomllib.loads(MANY))
    assert found.config is not None
    assert [each.id for each in found.config.providers] == ["b", "b"]
    assert [found.in_the_file(("providers", n)) for n in (0, 1)] == [
        ("providers", 1),
        ("providers", 2),
    ]
    assert found.in_the_file(("providers", 0, "models", 2)) == ("providers", 1, "models", 3)


def test_a_file_that_is_right_has_no_faults(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[server]\nport = 1\n")
    found = survey_file(path, str(tmp_path))
    assert (found.faults, found.lines[("server", "port")]) == ([], 2)
    assert found.config is not None
    assert (found.config.server.port, found.config.data_dir()) == (1, tmp_path)
    assert survey_file(None).config == Config()


@pytest.mark.parametrize("content", [b"a = = 1", b"\xff", None])
def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content)
    found = survey_file(path)
    assert (found.config, [fault.steps for fault in found.faults]) == (None, [()])


def _spoilt(raw: Any, draw: Any) -> None:
    """Put something wrong anywhere into a decoded file."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys: Any = range(len(value)) if isinstance(value, list) else value
        for key in keys:
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(raw)
    for _ in range(draw(st.integers(0, 4))):
        if places and draw(st.booleans()):
            table, key = draw(st.sampled_from(places))
            table[key] = draw(st.sampled_from([[[]], -1.5, "?", {"surprise": 1}]))
        else:
            raw[draw(st.sampled_from(["servr", "tierz"]))] = 1


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_it_finds_something_wherever_a_start_does(data: st.DataObject) -> None:
    """And nothing where a start finds nothing; the first thing that a start tells is among it."""
    raw = data.draw(raw_configurations())
    _spoilt(raw, data.draw)
    found = survey(raw)
    try:
        parse(raw, source="F")
    except ConfigError as error:
        assert found.faults
        first = error.message.removeprefix("F: ")
        assert first in {str(fault) for fault in found.faults}
    else:
        assert found.faults == []
        assert found.config is not None
