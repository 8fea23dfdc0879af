"""On which line of a TOML file each key and table stands. For messages; it checks nothing.

``tomllib`` tells no lines, so the text is walked once more, after it has been accepted. TOML 1.0:
https://toml.io/en/v1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from app.config_faults import Steps

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\n#]+")


def lines_of(text: str) -> dict[Steps, int]:
    """The line, from 1, of each key, table and item of a list; of ``text``, which is TOML."""
    walk = _Walk(text.replace("\r\n", "\n"))
    walk.file()
    return walk.lines


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted_at, self._line = 0, 1
        self._tables: dict[Steps, int] = {}  # arrays of tables: how many there are so far
        self.lines: dict[Steps, int] = {}

    def file(self) -> None:
        here: Steps = ()
        while self._skip(_BLANK) < len(self._text):
            line = self._line_here()
            if self._text.startswith("[", self._at):
                here = self._header(line)
            else:
                self._pair(here)

    def _header(self, line: int) -> Steps:
        is_item = self._text.startswith("[[", self._at)
        self._at += 2 if is_item else 1
        names = self._keys()
        self._at += 2 if is_item else 1
        here: Steps = ()
        for name in names[:-1]:
            here = self._newest((*here, name))
        here = (*here, names[-1])
        self.lines.setdefault(here, line)
        if is_item:
            self._tables[here] = self._tables.get(here, -1) + 1
            here = self._newest(here)
            self.lines[here] = line
        return here

    def _newest(self, here: Steps) -> Steps:
        return (*here, self._tables[here]) if here in self._tables else here

    def _pair(self, here: Steps) -> None:
        line = self._line_here()
        for name in self._keys():
            here = (*here, name)
            self.lines.setdefault(here, line)
        self._skip(_SPACE)
        self._at += 1  # =
        self._skip(_SPACE)
        self._value(here)

    def _keys(self) -> list[str]:
        """A key with its dots, and the blanks around it."""
        names: list[str] = []
        while True:
            self._skip(_SPACE)
            if self._text[self._at] in "\"'":
                quoted = self._take(_BASIC if self._text[self._at] == '"' else _LITERAL)
                names.append(_text_of(quoted))
            else:
                names.append(self._take(_BARE))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1

    def _value(self, here: Steps) -> None:
        start = self._text[self._at]
        if start == "[":
            self._items(here)
        elif start == "{":
            self._at += 1
            while self._more("}"):
                self._pair(here)
        elif self._text.startswith('"""', self._at):
            self._take(_LONG_BASIC)
        elif self._text.startswith("'''", self._at):
            self._take(_LONG_LITERAL)
        elif start == '"':
            self._take(_BASIC)
        elif start == "'":
            self._take(_LITERAL)
        else:
            self._take(_PLAIN)

    def _items(self, here: Steps) -> None:
        self._at += 1
        number = 0
        while self._more("]"):
            self.lines[*here, number] = self._line_here()
            self._value((*here, number))
            number += 1

    def _more(self, end: str) -> bool:
        """Go to the next part of a list or an inline table; past ``end`` where there is none."""
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(_BLANK)
        if self._text.startswith(end, self._at):
            self._at += 1
            return False
        return True

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"not TOML at character {self._at}")
        self._at = found.end()
        return found[0]

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._take(pattern)
        return self._at

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_at, self._at)
        self._counted_at = self._at
        return self._line


def _text_of(quoted: str) -> str:
    found: dict[str, Any] = tomllib.loads(f"k = {quoted}")
    return str(found["k"])
