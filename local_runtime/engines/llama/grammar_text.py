"""A GBNF grammar that came with a request, read before native code sees it.

llama.cpp's own reader recurses without a limit, multiplies repetitions out without one, and takes
more than 2,000 repetitions to mean any number. So what is given to it is read here first: syntax as
in ggml-org/llama.cpp, ``grammars/README.md``; bounded in depth and in size when multiplied out.

llama.cpp follows all readings of a text at once. There is no bound to their number where a rule
contains itself with something behind it (``root ::= "a" root "b" | "a" root "c" |``), or where what
may be empty is repeated: one request could hold up all others. So neither is taken from a request;
for nested JSON there is ``response_format``.
"""

import re
from typing import NoReturn

from local_runtime.engines.contract import RequestRefused

NESTING_MAX = 32
ELEMENTS_MAX = 50_000  # when all repetitions are written out
RULES_MAX = 2_000
REPETITIONS_MAX = 2_000  # llama.cpp's own limit

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9-]+")
_REPETITION = re.compile(r"\{[ \t]*(\d{1,9})[ \t]*(?:(,)[ \t]*(\d{1,9})?[ \t]*)?\}")
_CHARACTER = (
    r"(?:\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U(?:000[0-9A-Fa-f]|0010)[0-9A-Fa-f]{4}"
    r'|[trn\\"\[\]-])|[^\\%s])'
)
_LITERAL = re.compile('"(' + _CHARACTER % '"' + '*)"')
_CLASS = re.compile(r"\[(\^?" + _CHARACTER % r"\]" + r"+)\]")
_TOKEN = re.compile(r"!?<(?:\[\d{1,9}\]|[^<>\[\]\s]{1,64})>")
_ENDS = re.compile(r"[ \t]*(?:\r?\n|$)")


# When a part of a grammar can be the empty text: known, if this rule can, or if any or all can.
Empty = bool | str | tuple[str, "list[Empty]"]


def checked(text: str) -> str:
    """The text itself. Raises RequestRefused, naming ``grammar`` and the line at fault."""
    _Reader(text).read()
    return text


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._rules: set[str] = set()
        self._used: dict[str, int] = {}
        self._elements = 0
        self._found: list[tuple[str, bool]] = []  # references; whether nothing follows them
        self._edges: dict[str, list[tuple[str, bool]]] = {}
        self._empty: dict[str, Empty] = {}
        self._repeated: list[tuple[Empty, int]] = []
        self._reached: dict[str, set[str]] = {}

    def read(self) -> None:
        if "\0" in self._text:
            self._refuse("it holds a NUL character")
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._text):
            self._rule()
        if "root" not in self._rules:
            self._refuse("it has no rule named root")
        for name, at in self._used.items():
            if name not in self._rules:
                self._at = at
                self._refuse(f"the rule {name[:64]!r} is used and not defined")
        self._refuse_embedding()
        self._refuse_repeated_nothing()

    def _rule(self) -> None:
        name = self._match(_NAME, "the name of a rule")[0]
        if name in self._rules:
            self._refuse(f"the rule {name[:64]!r} is defined twice")
        self._rules.add(name)
        if len(self._rules) > RULES_MAX:
            self._refuse(f"it has more than {RULES_MAX} rules")
        self._skip(_SPACE)
        if not self._text.startswith("::=", self._at):
            self._refuse("'::=' is missing after the name of a rule")
        self._at += 3
        self._skip(_SPACE_AND_LINES)
        self._found = []
        size, self._empty[name] = self._alternatives(0)
        self._edges[name] = self._found
        self._count(size)
        self._match(_ENDS, "the end of a line")
        self._skip(_SPACE_AND_LINES)

    def _alternatives(self, depth: int) -> tuple[int, Empty]:
        """Reads ``a | b``: how many elements it is when multiplied out, and when it is empty."""
        if depth > NESTING_MAX:
            self._refuse(f"it is nested more than {NESTING_MAX} deep")
        size, empty = self._sequence(depth)
        options = [empty]
        while self._text.startswith("|", self._at):
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            more, empty = self._sequence(depth)
            size += 1 + more
            options.append(empty)
        return size, ("any", options)

    def _sequence(self, depth: int) -> tuple[int, Empty]:
        space = _SPACE_AND_LINES if depth else _SPACE
        total, parts, begun = 0, list[Empty](), len(self._found)
        while (found := self._element(depth, begun)) is not None:
            size, empty = found
            self._skip(space)
            while (times := self._repetition()) is not None:
                if times[1]:
                    self._repeated.append((empty, self._at))
                    self._not_last(begun)
                if not times[2]:
                    empty = True
                size = size * times[0] + times[0]
                self._skip(space)
                self._count(0, size)
            parts.append(empty)
            total += size
            self._count(0, total)
        return total, ("all", parts)

    def _element(self, depth: int, begun: int) -> tuple[int, Empty] | None:
        text, at = self._text, self._at
        start = text[at : at + 1]
        name = _NAME.match(text, at)
        if start and (start in '"[<!.(' or name):
            self._not_last(begun)
        if start == '"':
            literal = self._match(_LITERAL, "a closed literal")[1]
            return len(literal), not literal
        if start == "[":
            return len(self._match(_CLASS, "a closed character class")[1]), False
        if start in {"<", "!"}:
            self._match(_TOKEN, "a token, as in <[42]>")
            return 1, False
        if start == ".":
            self._at += 1
            return 1, False
        if start == "(":
            self._at += 1
            self._skip(_SPACE_AND_LINES)
            size, empty = self._alternatives(depth + 1)
            if not text.startswith(")", self._at):
                self._refuse("')' is missing")
            self._at += 1
            return size + 1, empty
        if name is None:
            return None
        self._used.setdefault(name[0], at)
        self._found.append((name[0], True))
        self._at = name.end()
        return 1, name[0]

    def _not_last(self, begun: int) -> None:
        """Something follows the references from there on."""
        self._found[begun:] = [(name, False) for name, _ in self._found[begun:]]

    def _repetition(self) -> tuple[int, bool, int] | None:
        """How often what came before is written out, whether it can come again, and its least."""
        start = self._text[self._at : self._at + 1]
        if start and start in "*+?":
            self._at += 1
            return 1, start != "?", int(start == "+")
        if start != "{":
            return None
        found = self._match(_REPETITION, "a repetition, as in {2,5}")
        least = int(found[1])
        most = int(found[3]) if found[3] else least
        if max(least, most) > REPETITIONS_MAX:
            self._refuse(f"a repetition is of more than {REPETITIONS_MAX}")
        if found[3] and most < least:
            self._refuse("a repetition ends below its start")
        endless = found[2] is not None and not found[3]
        return max(1, least, most), endless or max(least, most) > 1, least

    def _refuse_embedding(self) -> None:
        for name, edges in self._edges.items():
            for target, last in edges:
                if not last and name in self._reached_from(target):
                    self._at = self._used[target]
                    self._refuse(
                        f"the rule {name[:64]!r} contains itself with something behind it; for "
                        "nested JSON use response_format"
                    )

    def _reached_from(self, name: str) -> set[str]:
        if name not in self._reached:
            reached, todo = {name}, [name]
            while todo:
                new = {target for target, _ in self._edges[todo.pop()]} - reached
                reached |= new
                todo += new
            self._reached[name] = reached
        return self._reached[name]

    def _refuse_repeated_nothing(self) -> None:
        empty: set[str] = set()
        while more := {
            name for name, when in self._empty.items() if name not in empty and _is(when, empty)
        }:
            empty |= more
        for when, at in self._repeated:
            if _is(when, empty):
                self._at = at
                self._refuse("what is repeated may be empty")

    def _count(self, size: int, waiting: int = 0) -> None:
        self._elements += size
        if self._elements + waiting > ELEMENTS_MAX:
            self._refuse("it is too large with its repetitions written out")

    def _skip(self, space: re.Pattern[str]) -> None:
        found = space.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _match(self, pattern: re.Pattern[str], wanted: str) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if found is None:
            self._refuse(f"{wanted} is expected")
        self._at = found.end()
        return found

    def _refuse(self, reason: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise RequestRefused(f"grammar, line {line}: {reason}.", param="grammar")


def _is(when: Empty, empty: set[str]) -> bool:
    """Whether it can be empty, where the rules ``empty`` can."""
    if isinstance(when, bool):
        return when
    if isinstance(when, str):
        return when in empty
    pick = any if when[0] == "any" else all
    return pick(_is(part, empty) for part in when[1])
