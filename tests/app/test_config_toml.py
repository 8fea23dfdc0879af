"""The configuration written as TOML: it parses back, shows no secret, and says where it is from."""

import tomllib
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings

from app.config import Config, convert, parse
from app.config_faults import Steps
from app.config_lines import lines_of
from app.config_secrets import is_private, leaves
from app.config_toml import settings_of, to_toml
from tests.app.configurations import configurations

EXAMPLE = Path(__file__).resolve().parents[2] / "config.example.toml"
BIG = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SECRETS = """
[server]
port = 81
[[providers]]
id = "a"
plugin = "openai_compatible"
base_url = "http://user:PLANTED@h/v1"
api_key = "PLANTED"
settings = { headers = { authorization = "PLANTED", x = "fine" } }
api_keys = [{ key = "env:GOOD" }, { key = "PLANTED" }]
[webhook]
secret = "PLANTED"
[secrets]
master_key = "file:/etc/master.key"
old_master_keys = ["PLANTED"]
"""


@BIG
@given(configurations())
def test_what_is_written_parses_back_to_the_same(config: Config) -> None:
    assert convert(tomllib.loads(to_toml(config))) == convert(_with_tiers(config))


def _with_tiers(config: Config) -> dict[str, Any]:
    """A shipped tier that a file leaves out is there all the same."""
    from datetime import time

    import msgspec

    raw: dict[str, Any] = msgspec.to_builtins(config, builtin_types=(time,))
    raw["tiers"] = {
        name: {key: value for key, value in tier.items() if value is not None}
        for name, tier in raw["tiers"].items()
    }
    return raw


@BIG
@given(configurations())
def test_every_setting_that_is_written_has_a_line(config: Config) -> None:
    text = to_toml(config)
    written, lines = text.split("\n"), lines_of(text)
    for steps, value in leaves(config):
        line = written[lines[steps] - 1]
        last = next(step for step in reversed(steps) if isinstance(step, str))
        is_empty_table = value == {} and line.startswith("[")
        assert is_empty_table or line.startswith((last, '"')), (steps, line)


def test_origins_are_comments_that_change_nothing(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    config = parse(tomllib.loads(text), source="x", data_dir=str(tmp_path))
    lines = lines_of(text)
    origins = settings_of(config, lines, EXAMPLE, data_dir_given=True)
    shown = to_toml(config, origins)
    assert parse(tomllib.loads(shown), source="x") == config
    port_line = text[: text.index("\nport = ")].count("\n") + 2
    assert f"port = 8000  # {EXAMPLE}:{port_line}" in shown
    assert f'data_dir = "{tmp_path}"  # command line' in shown
    assert 'per = "account"  # default' in shown


def test_each_origin_is_one_of_three() -> None:
    text = "server = { port = 1 }\n[tiers.free]\noverage = 'stop'\n"
    config = parse(tomllib.loads(text), source="x")
    found = settings_of(config, lines_of(text), Path("f"), data_dir_given=False)
    told = {each.path: (each.origin, each.line) for each in found.values()}
    assert told["server.port"] == ("file", 1)
    assert told["tiers.free.overage"] == ("file", 3)
    assert told["server.host"] == told["tiers.free.monthly_credit_usd"] == ("default", None)


def test_no_secret_is_shown() -> None:
    config = parse(tomllib.loads(SECRETS), source="x")
    shown = to_toml(config)
    assert "PLANTED" not in shown
    assert 'key = "env:GOOD"' in shown
    assert 'master_key = "file:/etc/master.key"' in shown
    assert 'x = "fine"' in shown
    values = str(
        [each.value for each in settings_of(config, {}, None, data_dir_given=False).values()]
    )
    assert "PLANTED" not in values
    assert is_private(config)
    assert not is_private(Config())


def test_lines_of_every_form_that_toml_has() -> None:
    text = '''# a comment = 1
a.b = 1 # and = another
"quo.ted" = "x # no comment \\" ]"
long = """
[not.a.table]
key = 1 \\"""
"""
raw = \'\'\'
[[neither]]''\'\'\'
list = [
  1, "]", # [
  [2, { x = 3 }],
]
inline = { y = { z = 1 }, "k k" = [\'a\'] }
[t."u v"]
w = 1979-05-27T07:32:00Z
[[many]]
n = 1
[[many.inner]]
m = 1
[[many]]
[many.table]
n = 2
'''
    tomllib.loads(text)
    lines = lines_of(text.replace("\n", "\r\n"))
    expected: dict[Steps, int] = {
        ("a", "b"): 2,
        ("quo.ted",): 3,
        ("long",): 4,
        ("raw",): 8,
        ("list",): 10,
        ("list", 1): 11,
        ("list", 2, 1, "x"): 12,
        ("inline", "y", "z"): 14,
        ("inline", "k k", 0): 14,
        ("t", "u v"): 15,
        ("t", "u v", "w"): 16,
        ("many", 0): 17,
        ("many", 0, "n"): 18,
        ("many", 0, "inner", 0, "m"): 20,
        ("many", 1): 21,
        ("many", 1, "table", "n"): 23,
    }
    assert {steps: lines.get(steps) for steps in expected} == expected
    assert ("neither",) not in lines
