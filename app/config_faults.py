"""What is wrong with a configuration file, in words: the path to the key, expected, found.

msgspec checks the values and says where in its own terms (``$.tiers[...].overage``); this puts the
real key into the path and names types as a person who writes TOML knows them.
"""

import json
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

Steps = tuple[str | int, ...]
"""The way to a value: keys, and positions in lists, from the top of the file."""

USD = 'USD in quotes, so that it is exact, like "0.20"'
PATTERNS = {
    r"^[a-z0-9][a-z0-9._-]{0,63}\Z": (
        'a name of at most 64 of a-z, 0-9, ".", "_" and "-", that starts with a letter or digit'
    ),
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,2}\Z": (
        'a model name like "org/name"'
    ),
    r"^[0-9]{1,9}(\.[0-9]{1,9})?\Z": USD,
    r"^(file|package|store|hf|fake):.*$": (
        '"file:PATH" or "package:NAME/FILE" or "store:NAME" or "hf:ORG/REPO"'
    ),
    r"^(file|package):.*$": '"file:PATH" or "package:NAME/FILE"',
    r"^https?://[^\s/]+": 'a URL like "https://example.org/path"',
    r"^[a-z0-9][a-z0-9_-]{0,31}\Z": 'a label of at most 32 of a-z, 0-9, "_" and "-"',
    r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z": 'a name like "gpt-4o" or "org/name"',
    r"^[a-z][a-z0-9_]{0,62}\.py\Z": 'the name of a file in the folder, like "acme.py"',
    r"^sha256:[0-9a-f]{64}\Z": '"sha256:" and the 64 digits that `turnpike plugins list` shows',
    r"^[A-Za-z0-9-]{1,64}\Z": 'a header\'s name like "Inference-Id"',
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:]{5,8}(\.0+)?(Z|[+-][0-9:]{5})?)?\Z": (
        'a date like "2026-12-01" (from midnight UTC), or one with a time like'
        ' "2026-12-01T12:00:00Z"'
    ),
}
"""The patterns of ``app.config``, in words."""

_TYPES = {
    "str": "a string in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "null": "nothing",
}
_VALUE_CHARACTERS_MAX = 60

_MISSING = re.compile(r"Object missing required field `(.*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_WRONG_TYPE = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_WRONG_PATTERN = re.compile(r"Expected `str` matching regex '(.*)'")
_OUT_OF_RANGE = re.compile(r"Expected `(int|float)` (<=|>=|<|>) (\S+)")
_TOO_SHORT = re.compile(r"Expected `str` of length (<=|>=) (\d+)")


class Fault(NamedTuple):
    """One mistake: where it is, what it is in words, and of which sort.

    ``wrong`` is a value of another type or out of its range, ``key`` a name that a table's key
    cannot have, ``rule`` a value that does not go with another one, ``carried`` is not of the file
    but of what a bundle added to it. ``nearest`` is the known key that an unknown one is most like,
    empty where none is.
    """

    steps: Steps
    text: str
    sort: Literal["unknown", "missing", "wrong", "key", "rule", "carried"]
    nearest: str = ""

    @property
    def path(self) -> str:
        """``providers[0].models[0].price``."""
        return shown(self.steps)

    def __str__(self) -> str:
        return f"{self.path or 'the file'}: {self.text}"


def explain(
    message: str,
    raw: dict[str, Any],
    choices: dict[str, tuple[str, ...]],
    check: Callable[[Any], str],
    known: Callable[[Sequence[str | int]], Sequence[str]] = lambda _steps: (),
) -> Fault:
    """``providers[0].models[0].price: expected …, found …`` for msgspec's message about ``raw``.

    ``choices`` gives the allowed words by key. ``check`` decodes a whole file again and gives back
    msgspec's message, or an empty string: it finds out which of several tables is meant. ``known``
    gives the keys that a table may have.
    """
    text, _, where = message.partition(" - at `")
    of_a_key = where.startswith("key` in `")
    path = where.removeprefix("key` in `").removesuffix("`").removeprefix("$")
    steps = _real_steps(path, message, raw, check)
    if of_a_key:
        return _wrong_key(steps, text, raw)
    if found := _UNKNOWN.fullmatch(text):
        return _unknown_key(steps, found[1], known(steps))
    if found := _MISSING.fullmatch(text):
        return Fault((*steps, found[1]), "missing, and it has no default", "missing")
    value = _lookup(raw, steps)
    expected = USD if _is_money(steps) else _expected(text, _key(steps), choices)
    told = f"expected {expected}, found {_found(shown(steps), value)}"
    return Fault(tuple(steps), told, "wrong")


def _unknown_key(steps: list[str | int], key: str, known: Sequence[str]) -> Fault:
    nearest = next(iter(get_close_matches(key, known, n=1, cutoff=0.6)), "")
    meant = f"did you mean {shown([*steps, nearest])}? " if nearest else ""
    told = f"unknown key; {meant}config.example.toml lists every setting"
    return Fault((*steps, key), told, "unknown", nearest)


def _expected(text: str, key: str, choices: dict[str, tuple[str, ...]]) -> str:
    """What msgspec wanted, in words."""
    if text.startswith("Invalid enum value"):
        return " or ".join(f'"{word}"' for word in choices.get(key, ()))
    if found := _WRONG_TYPE.match(text):
        wanted = [name for name in found[1].split(" | ") if name != "null"]
        return " or ".join(_TYPES.get(name, name) for name in wanted)
    if found := _WRONG_PATTERN.match(text):
        pattern = found[1].replace("\\\\", "\\")
        return PATTERNS.get(pattern, f"a string like {pattern}")
    if found := _OUT_OF_RANGE.match(text):
        bound = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}[found[2]]
        return f"{_TYPES[found[1]]}, {bound} {found[3].removesuffix('.0')}"
    if found := _TOO_SHORT.match(text):
        bound = "at least" if found[1] == ">=" else "at most"
        return f"a string of {bound} {found[2]} characters"
    return text


def _last(steps: list[str | int]) -> str:
    return str(steps[-1]) if steps else ""


def _key(steps: list[str | int]) -> str:
    """The key that a value, or the list that it is in, stands under."""
    return next((step for step in reversed(steps) if isinstance(step, str)), "")


def _is_money(steps: list[str | int]) -> bool:
    if {"price", "prices"} & set(steps[:-1]):
        return _last(steps) != "from" and not isinstance(steps[-1], int)
    return "_usd" in _last(steps) or _last(steps) == "price_per_second"


def _found(path: str, value: object) -> str:
    """The value as TOML writes it; of what may be a secret, only its type."""
    kind = next(
        (name for of, name in _PYTHON_TYPES if isinstance(value, of)), f"a {type(value).__name__}"
    )
    if isinstance(value, dict | list) or "key" in path or ".settings" in path:
        return kind
    literal = json.dumps(value, ensure_ascii=False, default=str)
    if len(literal) > _VALUE_CHARACTERS_MAX:
        literal = f"{literal[:_VALUE_CHARACTERS_MAX]}…"
    return f"{kind}, {literal}"


_PYTHON_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "a truth value"),
    (str, "a string"),
    (int, "a whole number"),
    (float, "a number with a point"),
    (dict, "a table"),
    (list, "a list"),
)


def _real_steps(
    path: str, message: str, raw: dict[str, Any], check: Callable[[Any], str]
) -> list[str | int]:
    """With the key of the first table that fails when checked alone in place of ``[...]``."""
    before, hidden, after = path.partition("[...]")
    if not hidden:
        return _steps(path)
    steps = _steps(before)
    tables = _lookup(raw, steps)
    for key, table in tables.items() if isinstance(tables, dict) else ():
        alone: Any = {key: table}
        for step in reversed(steps):
            alone = {step: alone}
        if check(alone) == message:
            return [*steps, key, *_steps(after)]
    return steps


def _wrong_key(steps: list[str | int], text: str, raw: dict[str, Any]) -> Fault:
    expected = _expected(text, "", {})
    pattern = next((p for p, words in PATTERNS.items() if words == expected), "")
    table = _lookup(raw, steps)
    keys = table if isinstance(table, dict) else {}
    bad = next((key for key in keys if pattern and not re.search(pattern, key)), "")
    return Fault((*steps, bad), f"expected {expected}", "key")


def _steps(path: str) -> list[str | int]:
    """``.providers[0].id`` as ``["providers", 0, "id"]``."""
    return [
        int(part[1:-1]) if part.startswith("[") else part.lstrip(".")
        for part in re.findall(r"\.[^.\[]+|\[\d+\]", path)
    ]


def shown(steps: Sequence[str | int]) -> str:
    """The way to a value as a person writes it: ``tiers.free.overage``."""
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps).removeprefix(".")


def _lookup(raw: object, steps: list[str | int]) -> object:
    value: Any = raw
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value
