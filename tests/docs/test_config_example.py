"""``config.example.toml`` is the truth about settings: all of them, each with its default.

Of tables that may have any name, one name that is not shipped shows all settings with the
defaults; the shipped ones show where they differ.

How the file is read: lines that start with ``#`` and no space are settings that are switched off.
As it stands it must equal the defaults. With all switched on it must still be accepted, name every
setting once, and show the default wherever there is one.
"""

import ast
import itertools
import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from app.config import Config, parse

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "config.example.toml"
LINES = EXAMPLE.read_text(encoding="utf-8").splitlines()
SWITCHED_OFF = re.compile(r"^#(?=[^ #])")
SETTING = re.compile(r"^#?([a-z_]+) = ")


def switched_on() -> dict[str, Any]:
    return tomllib.loads("\n".join(SWITCHED_OFF.sub("", line) for line in LINES))


def tables_in(hint: Any) -> list[type[msgspec.Struct]]:
    """The Structs that a field's type speaks of, through lists, mappings and unions."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return [hint]
    if get_origin(hint) in {list, dict, types.UnionType}:
        return [table for part in get_args(hint) for table in tables_in(part)]
    return []


def is_named(hint: Any) -> bool:
    return get_origin(hint) is dict and bool(tables_in(hint))


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def without_defaults(table: msgspec.Struct) -> dict[str, Any]:
    """What a table that is shipped under a name says differently from one that says nothing."""
    plain = msgspec.to_builtins(type(table)())
    return {key: value for key, value in msgspec.to_builtins(table).items() if value != plain[key]}


def settings(
    table: type[msgspec.Struct], shown: Any, path: str
) -> Iterator[tuple[str, Any, Any, str]]:
    """Each leaf as path, default (NODEFAULT where it has none), shown value, and its name."""
    hints = get_type_hints(table)
    for field in msgspec.structs.fields(table):
        key = field.encode_name
        here = f"{path}.{key}".lstrip(".")
        value = shown.get(key, msgspec.UNSET) if isinstance(shown, dict) else msgspec.UNSET
        inner = tables_in(hints[field.name])
        if not inner:
            yield here, default_of(field), value, field.name
        elif is_named(hints[field.name]):
            defaults = default_of(field)
            assert isinstance(value, dict)
            (named,) = tables_in(hints[field.name])
            for name in defaults:
                at_name = value.get(name, {})
                for key, default in without_defaults(defaults[name]).items():
                    yield f"{here}.{name}.{key}", default, at_name.get(key, msgspec.UNSET), key
            (sample,) = set(value) - set(defaults)
            yield from settings(named, value[sample], f"{here}.{sample}")
        else:
            one = value[0] if isinstance(value, list) and value else value
            for struct in inner:
                yield from settings(struct, one, here)


ALL = list(settings(Config, switched_on(), ""))


def test_as_it_stands_it_changes_nothing() -> None:
    assert parse(tomllib.loads(EXAMPLE.read_text(encoding="utf-8")), source="example") == Config()


def test_with_everything_switched_on_little_excludes_each_other() -> None:
    everything = switched_on()
    model = everything["providers"][0]["models"][0]
    assert model["free"] is False
    del model["price_per_second"]
    del model["prices"][0]["per_second"]
    lab = everything["tiers"]["lab"]
    assert lab["overage"] == "stop"
    lab["overage"] = "pay_as_you_go"
    assert parse(everything, source="example").providers[0].id == "mock"


@pytest.mark.parametrize(("path", "default", "shown"), [entry[:3] for entry in ALL])
def test_every_setting_is_shown_with_its_default(path: str, default: Any, shown: Any) -> None:
    assert shown is not msgspec.UNSET, f"{path} is not in config.example.toml"
    if default is not msgspec.NODEFAULT and default is not None:
        assert shown == default
        assert type(shown) is type(default)


@pytest.mark.parametrize(("path", "default"), [entry[:2] for entry in ALL])
def test_a_setting_without_default_is_switched_off(path: str, default: Any) -> None:
    live: Any = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    for key in path.split("."):
        live = live.get(key, msgspec.UNSET) if isinstance(live, dict) else msgspec.UNSET
    if default is None or default is msgspec.NODEFAULT:
        assert live is msgspec.UNSET


def test_every_setting_is_explained() -> None:
    unexplained = [
        line
        for before, line in itertools.pairwise(LINES)
        if SETTING.match(line) and not before.startswith("# ")
    ]
    assert unexplained == []


def test_every_setting_is_read_somewhere() -> None:
    """A setting that nothing reads is a promise that nothing keeps."""
    read = set()
    for path in (ROOT / "app").rglob("*.py"):
        if path.name != "config.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # data_dir is read inside config.py.
    assert sorted({name for *_, name in ALL} - read - {"data_dir"}) == []
