"""Random texts of a GBNF grammar: the grammar's side of a proof that all its texts are valid."""

import random
import re
from typing import Any

_TOKEN = re.compile(
    r'"((?:[^"\\]|\\.)*)"|\[((?:[^\]\\]|\\.)*)\]|([A-Za-z0-9-]+)|(\{\d+,?\d*\}|[*+?])|([()|])|(\s+)'
)
_CHAR = re.compile(r"\\U([0-9A-F]{8})|\\x([0-9A-F]{2})|\\(.)|(.)", re.DOTALL)
_STEPS = 4_000
_FEW = 3


class Runaway(Exception):
    """The text did not come to an end."""


class Writer:
    """Draws texts; nothing is shared with the code under test but GBNF's definition."""

    def __init__(self, grammar: str) -> None:
        self._rules = {
            name: _parse(body)
            for name, body in (line.split(" ::= ", 1) for line in grammar.splitlines())
        }

    def text(self, seed: int) -> str:
        self._random = random.Random(seed)
        self._steps = 0
        return self._write(self._rules["root"])

    def _write(self, node: Any) -> str:
        self._steps += 1
        if self._steps > _STEPS:
            raise Runaway
        kind, *parts = node
        if kind == "text":
            return str(parts[0])
        if kind == "class":
            low, high = self._random.choice(parts[0])
            return chr(self._random.choice([low, high, self._random.randint(low, high)]))
        if kind == "rule":
            return self._write(self._rules[parts[0]])
        if kind == "repeat":
            inner, least, most = parts
            top = least + _FEW if most is None else most
            count = self._random.choice([least, top, self._random.randint(least, top)])
            return "".join(self._write(inner) for _ in range(count))
        return "".join(map(self._write, self._random.choice(parts[0])))


def _parse(body: str) -> Any:
    tokens = [match for match in _TOKEN.finditer(body) if match[6] is None]
    assert "".join(match[0] for match in _TOKEN.finditer(body)) == body, body
    node, at = _options(tokens, 0)
    assert at == len(tokens), body
    return node


def _options(tokens: list[re.Match[str]], at: int) -> tuple[Any, int]:
    options: list[list[Any]] = [[]]
    while at < len(tokens) and tokens[at][0] != ")":
        token = tokens[at]
        at += 1
        if token[0] == "|":
            options.append([])
        elif token[4]:
            options[-1][-1] = ("repeat", options[-1][-1], *_times(token[4]))
        elif token[0] == "(":
            node, at = _options(tokens, at)
            assert tokens[at][0] == ")"
            at += 1
            options[-1].append(node)
        elif token[3]:
            options[-1].append(("rule", token[3]))
        elif token[0].startswith('"'):
            options[-1].append(("text", "".join(map(chr, _codes(token[1])))))
        else:
            options[-1].append(("class", _ranges(token[2])))
    return ("options", options), at


def _times(text: str) -> tuple[int, int | None]:
    if text in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[text]
    low, comma, high = text[1:-1].partition(",")
    return int(low), int(high) if high else None if comma else int(low)


def _codes(text: str) -> list[int]:
    return [_code(match) for match in _CHAR.finditer(text)]


def _code(match: re.Match[str]) -> int:
    if match[1] or match[2]:
        return int(match[1] or match[2], 16)
    return ord({"n": "\n", "t": "\t", "r": "\r"}.get(match[3], match[3]) if match[3] else match[4])


def _ranges(text: str) -> list[tuple[int, int]]:
    assert not text.startswith("^")
    found, chars = [], list(_CHAR.finditer(text))
    at = 0
    while at < len(chars):
        low = high = _code(chars[at])
        if at + 2 < len(chars) and chars[at + 1][0] == "-":
            high = _code(chars[at + 2])
            at += 2
        found.append((low, high))
        at += 1
    return found
