"""Writes a configuration as TOML 1.0 (https://toml.io/en/v1.0.0), and says where each setting is
from. What is written parses back to the same configuration, save for secrets that are not shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import time
from pathlib import Path
from typing import Any

import msgspec

from app.config import Config
from app.config_faults import Steps, shown
from app.config_secrets import leaves, shown_value

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as it is in force. ``origin`` is "default", "file", "command line" or "bundle";
    ``file`` and ``line`` (from 1) say where, if it is from a file.
    """

    path: str
    value: Any
    origin: str
    file: str | None = None
    line: int | None = None


def settings_of(
    config: Config,
    lines: Mapping[Steps, int],
    file: Path | None,
    *,
    data_dir_given: bool,
    carried: Sequence[Steps] = (),
) -> dict[Steps, Setting]:
    """Every setting that has a value; ``data_dir_given``: on the command line. ``carried`` are the
    places that a bundle filled in.
    """
    found = {}
    for steps, value in leaves(config):
        line = lines.get(steps)
        origin = "default" if line is None else "file"
        if data_dir_given and steps == ("server", "data_dir"):
            origin, line = "command line", None
        if any(steps[: len(each)] == each for each in carried):
            origin, line = "bundle", None
        found[steps] = Setting(
            path=shown(steps),
            value=shown_value(config, steps, value),
            origin=origin,
            file=str(file) if origin == "file" else None,
            line=line,
        )
    return found


def to_toml(config: Config, origins: Mapping[Steps, Setting] | None = None) -> str:
    """The whole configuration; with ``origins``, a comment behind each setting says its own."""
    plain = msgspec.to_builtins(config, builtin_types=(time,))
    lines = list(_Writer(config, origins).table(plain, ()))
    return "\n".join(lines).strip("\n") + "\n"


class _Writer:
    def __init__(self, config: Config, origins: Mapping[Steps, Setting] | None) -> None:
        self._config = config
        self._origins = origins

    def table(self, table: Mapping[str, Any], here: Steps) -> Iterator[str]:
        """Its own settings, then the tables in it, as TOML wants them in this order."""
        rest = []
        for key, value in table.items():
            if value is None:
                continue
            if _is_table(value) or _is_tables(value):
                rest.append((key, value))
            else:
                yield self._pair(key, value, (*here, key))
        for key, value in rest:
            inside = (*here, key)
            if isinstance(value, dict):
                if not all(_is_table(each) or _is_tables(each) for each in value.values()):
                    yield from ("", f"[{_name(inside)}]")
                yield from self.table(value, inside)
                continue
            for at, each in enumerate(value):
                yield from ("", f"[[{_name(inside)}]]")
                yield from self.table(each, (*inside, at))

    def _pair(self, key: str, value: Any, steps: Steps) -> str:
        line = f"{_key(key)} = {_value(shown_value(self._config, steps, value))}"
        setting = (self._origins or {}).get(steps)
        if setting is None:
            return line
        where = setting.origin if setting.line is None else f"{setting.file}:{setting.line}"
        return f"{line}  # {_CONTROL.sub('?', where)}"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _name(steps: Steps) -> str:
    return ".".join(_key(step) for step in steps if isinstance(step, str))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_key(key)} = {_value(inner)}" for key, inner in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    return value.isoformat() if isinstance(value, time) else repr(value)


def _string(text: str) -> str:
    """As JSON has it, and DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
