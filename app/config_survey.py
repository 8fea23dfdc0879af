"""Every mistake of a configuration file at once, where a start would name the first.

The same checks as a start's, over and over: whatever is found wrong is taken out of a copy, and
the rest is checked again. What is only said because something else was taken out is left unsaid.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from app.config import Config, convert, explained, with_moments_as_text
from app.config_carried import CARRIED_KEYS, with_carried
from app.config_faults import Fault, Steps
from app.config_lines import lines_of
from app.config_rules import broken
from app.errors import ConfigError

FAULTS_MAX = 200
"""How many are told; a file with more is none of ours."""


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """``config`` is the file without what is wrong in it, None where nothing of it can be read.

    ``lines`` says where in the file (from 1) each key and table stands. ``in_the_file`` takes a
    place in ``config`` to the same place in the file, where lists may be longer.
    """

    config: Config | None
    faults: list[Fault]
    lines: dict[Steps, int]
    in_the_file: Callable[[Steps], Steps] = tuple

    def line_of(self, steps: Steps) -> int | None:
        """Where it stands, or else where the innermost table around it begins."""
        for length in range(len(steps), 0, -1):
            if steps[:length] in self.lines:
                return self.lines[steps[:length]]
        return None

    def is_right(self, *steps: str) -> bool:
        """Whether nothing is wrong with a setting, so that ``config`` has it as the file does."""
        return not any(
            fault.steps == steps or (*fault.steps[:-1], fault.nearest) == steps
            for fault in self.faults
        )


def survey_file(path: Path | None, data_dir: str | None = None) -> Survey:
    """Read and check a file; without one, the defaults. ``data_dir`` wins over the file's.

    A file that cannot be read, or is no TOML, is one fault of the whole file. Where what a bundle
    carried cannot be used, the rest is looked at without it.
    """
    text = ""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            return _nothing(f"cannot be read: {error.strerror}")
        except UnicodeDecodeError as error:
            return _nothing(f"not valid TOML: {error}")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return _nothing(f"not valid TOML: {error}")
    lost = ""
    try:
        raw, _ = with_carried(raw, data_dir)
    except ConfigError as error:
        lost = str(error)
    found = survey(raw, lines_of(text))
    if lost:
        # A price that is missing may be one of those.
        others = [each for each in found.faults if not _may_be_carried(each)]
        found = msgspec.structs.replace(found, faults=[Fault((), lost, "carried"), *others])
    if data_dir is None or found.config is None:
        return found
    server = msgspec.structs.replace(found.config.server, data_dir=data_dir)
    config = msgspec.structs.replace(found.config, server=server)
    return msgspec.structs.replace(found, config=config)


def _may_be_carried(fault: Fault) -> bool:
    return fault.sort == "rule" and fault.steps[-1:] in {(key,) for key in CARRIED_KEYS}


def survey(raw: dict[str, Any], lines: dict[Steps, int] | None = None) -> Survey:
    """All faults of a decoded file, in the order of their lines."""
    lines = lines or {}
    mending = _Mending(with_moments_as_text(raw))
    config = mending.config()
    if config is not None:
        mending.check_rules(config)
    found = Survey(config=config, faults=[], lines=lines)
    faults = sorted(mending.faults, key=lambda fault: found.line_of(fault.steps) or 0)
    return Survey(config=config, faults=faults, lines=lines, in_the_file=mending.in_the_file)


def _nothing(text: str) -> Survey:
    return Survey(config=None, faults=[Fault((), text, "wrong")], lines={})


class _Mending:
    """A copy of the file that gets smaller until it is right."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw
        self._places: dict[int, list[int]] = {}
        self._number(raw)
        self.faults: list[Fault] = []
        self._taken: set[Steps] = set()
        self._unsaid: set[Steps] = set()

    def config(self) -> Config | None:
        """What is left of the file once everything wrong is out of it."""
        for _ in range(FAULTS_MAX):
            try:
                return convert(self._raw)
            except msgspec.ValidationError as error:
                fault = explained(str(error), self._raw)
                if not self._take_out(fault):
                    return None
        return None

    def check_rules(self, config: Config) -> None:
        """Add the rules between keys that are broken."""
        for fault in broken(config):
            steps = self.in_the_file(fault.steps)
            if not self._is_a_consequence(steps):
                self.faults.append(fault._replace(steps=steps))

    def _take_out(self, fault: Fault) -> bool:
        """Note the fault and remove what it is about; whether there was such a thing."""
        steps = self.in_the_file(fault.steps)
        is_missing = fault.sort == "missing"
        if not (is_missing and steps in self._unsaid | self._taken):
            self.faults.append(fault._replace(steps=steps))
        self._unsaid.add(steps)
        if fault.nearest:
            self._unsaid.add((*steps[:-1], fault.nearest))
        return self._remove(fault.steps[:-1] if is_missing else fault.steps)

    def _remove(self, steps: Steps) -> bool:
        if not steps:
            return False
        self._taken.add(self.in_the_file(steps))
        table: Any = self._raw
        try:
            for step in steps[:-1]:
                table = table[step]
            del table[steps[-1]]
        except (KeyError, IndexError, TypeError):
            return False
        if isinstance(table, list):
            del self._places[id(table)][int(steps[-1])]
        return True

    def _is_a_consequence(self, steps: Steps) -> bool:
        """Whether a rule is broken only because what it is about was taken out."""
        return any(
            taken[: len(steps)] == steps or steps[: len(taken)] == taken
            for taken in self._taken | self._unsaid
        )

    def _number(self, value: Any) -> None:
        if isinstance(value, list):
            self._places[id(value)] = list(range(len(value)))
        inner = value.values() if isinstance(value, dict) else value
        for each in inner if isinstance(value, dict | list) else ():
            self._number(each)

    def in_the_file(self, steps: Steps) -> Steps:
        """The same place with the positions that lists had at first."""
        table: Any = self._raw
        found: list[str | int] = []
        for step in steps:
            places = self._places.get(id(table), []) if isinstance(table, list) else []
            numbered = isinstance(step, int) and step < len(places)
            found.append(places[int(step)] if numbered else step)
            try:
                table = table[step]
            except (KeyError, IndexError, TypeError):
                table = None
        return tuple(found)
