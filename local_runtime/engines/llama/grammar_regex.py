"""JSON Schema's ``pattern`` as GBNF: a bounded part of ECMA 262's regular expressions.

Taken are literals, classes, ``\\d \\w \\s`` and their opposites, groups, ``|``, and repetitions;
``^`` and ``$`` only around the whole or around each alternative. What looks around, refers back or
marks word boundaries is refused. Where a pattern is not anchored the text is the match alone, which
is narrower. Texts are JSON strings: what must be escaped there is written escaped.
"""

import re
from dataclasses import dataclass, replace
from typing import NoReturn

NESTING_MAX = 16
REPETITIONS_MAX = 2_000
PATTERN_CHARACTERS_MAX = 2_000

Ranges = tuple[tuple[int, int], ...]
_LAST = 0x10FFFF
_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = ((9, 10), (12, 13), (32, 32))
# Engines of regular expressions differ beyond ASCII; the opposites are what none takes otherwise.
_NO_DIGIT: Ranges = ((32, 47), (58, 126))
_NO_WORD: Ranges = ((32, 47), (58, 64), (91, 94), (96, 96), (123, 126))
_NO_SPACE: Ranges = ((33, 126), (0xC0, 0x167F), (0x1681, 0x1FFF), (0x3001, 0xD7FF))
_LINE_ENDS: Ranges = ((10, 10), (13, 13), (8232, 8233))
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
# What JSON writes with a backslash; other control characters are left out.
_ESCAPED = {8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: '"', 92: "\\"}
# What stands in a JSON string as it is: no quote, no backslash, no control character, no half of a
# surrogate pair.
_PLAIN: Ranges = ((32, 33), (35, 91), (93, 126), (128, 0xD7FF), (0xE000, _LAST))
_QUANTIFIER = re.compile(r"\{(\d{1,9})(?:(,)(\d{1,9})?)?\}")


class PatternRefused(Exception):
    """The text says what is not supported."""


@dataclass(frozen=True, slots=True)
class Node:
    """``chars`` for one character; otherwise ``options``, each a sequence. Repeated as said.

    ``most`` None: without end.
    """

    chars: Ranges | None = None
    options: tuple[tuple["Node", ...], ...] = ()
    least: int = 1
    most: int | None = 1

    def lengths(self) -> tuple[int, int | None]:
        """Characters of its shortest and longest text; None: without end."""
        if self.chars is not None:
            return self.least, self.most
        inner = [lengths_of(option) for option in self.options]
        longest = [most for _, most in inner]
        most = None if None in longest else max(filter(None, longest), default=0)
        if most == 0 or self.most == 0:
            ends: int | None = 0
        else:
            ends = None if most is None or self.most is None else most * self.most
        return min(least for least, _ in inner) * self.least, ends

    def text(self) -> str:
        """It as GBNF."""
        if self.most is not None and self.most < self.least:
            raise PatternRefused("its lengths contradict each other, which is not supported")
        body = _class_text(self.chars) if self.chars is not None else _options_text(self.options)
        if (self.least, self.most) == (1, 1):
            return body
        times = f"{self.least}," if self.most is None else f"{self.least},{self.most}"
        return f"{body}{{{times}}}"


def pattern_rule(pattern: str, least: int = 0, most: int | None = None) -> str:
    """A rule body for the inside of a JSON string that matches, ``least`` to ``most`` characters.

    Raises PatternRefused.
    """
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise PatternRefused("it is too long")
    options = [_fit(option, least, most) for option in _Reader(pattern).read()]
    fitting = [option for option in options if option is not None]
    if not fitting:
        raise PatternRefused("no text of it has the length that is asked for")
    return _options_text(tuple(fitting))


def lengths_of(sequence: tuple[Node, ...]) -> tuple[int, int | None]:
    """The same for nodes one after the other."""
    both = [node.lengths() for node in sequence]
    longest = [most for _, most in both]
    ends = None if None in longest else sum(most or 0 for most in longest)
    return sum(least for least, _ in both), ends


def _fit(sequence: tuple[Node, ...], least: int, most: int | None) -> tuple[Node, ...] | None:
    """The sequence with its repetitions narrowed to the lengths; None where that is impossible."""
    nodes = list(sequence)
    for at, node in enumerate(nodes):
        once = 1 if node.chars is not None else min(lengths_of(o)[0] for o in node.options)
        lacking = least - lengths_of(tuple(nodes))[0]
        if lacking > 0 and once:
            more = -(-lacking // once)
            more = more if node.most is None else min(more, node.most - node.least)
            nodes[at] = replace(node, least=node.least + more)
    fitted = tuple(nodes) if most is None else _shortened(tuple(nodes), most)
    if fitted is None or lengths_of(fitted)[0] < least:
        return None
    return fitted


def _shortened(sequence: tuple[Node, ...], most: int) -> tuple[Node, ...] | None:
    """No text longer than ``most``: the last parts give way first."""
    nodes = list(sequence)
    if lengths_of(sequence)[0] > most:
        return None
    for at in reversed(range(len(nodes))):
        longest = lengths_of(tuple(nodes))[1]
        if longest is not None and longest <= most:
            break
        others = lengths_of(tuple(nodes[:at] + nodes[at + 1 :]))[1]
        shortest = nodes[at].lengths()[0]
        room = shortest if others is None else max(shortest, most - others)
        nodes[at] = _shortened_node(nodes[at], room)
    longest = lengths_of(tuple(nodes))[1]
    return tuple(nodes) if longest is not None and longest <= most else None


def _shortened_node(node: Node, room: int) -> Node:
    """The node with texts of at most ``room``, which is not below its shortest."""
    times_max = room if node.most is None else node.most
    if node.chars is not None:
        return replace(node, most=min(times_max, room))
    longest = max((lengths_of(option)[1] or room + 1 for option in node.options), default=0)
    if longest * max(1, node.least) <= room:
        return replace(node, most=min(times_max, room // longest) if longest else times_max)
    times = max(node.least, min(1, times_max))
    options = [_shortened(option, room // times) for option in node.options] if times else []
    fitting = tuple(option for option in options if option is not None)
    return replace(node, options=fitting, most=times) if fitting else replace(node, most=0)


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0

    def read(self) -> list[tuple[Node, ...]]:
        options = self._options(0)
        if self._at < len(self._text):
            self._refuse("')' without '('")
        return options

    def _options(self, depth: int) -> list[tuple[Node, ...]]:
        if depth > NESTING_MAX:
            self._refuse("groups nested too deep")
        options = [self._sequence(depth)]
        while self._peek() == "|":
            self._at += 1
            options.append(self._sequence(depth))
        return options

    def _sequence(self, depth: int) -> tuple[Node, ...]:
        nodes: list[Node] = []
        if self._peek() == "^" and depth == 0:
            self._at += 1
        while (char := self._peek()) not in {"", "|", ")"}:
            if char == "$" and depth == 0:
                self._at += 1
                if self._peek() not in {"", "|"}:
                    self._refuse("'$' before the end")
                break
            if char in {"^", "$"}:
                self._refuse(f"{char!r} inside")
            nodes.append(self._repeated(self._atom(depth)))
        return tuple(nodes)

    def _atom(self, depth: int) -> Node:
        char = self._take()
        if char == "(":
            if self._text.startswith("?:", self._at):
                self._at += 2
            elif self._peek() == "?":
                self._refuse("groups that look around or have names")
            options = self._options(depth + 1)
            if self._peek() != ")":
                self._refuse("a group that is not closed")
            self._at += 1
            return Node(options=tuple(options))
        if char == "[":
            return Node(chars=self._class())
        if char == ".":
            return Node(chars=_opposite(_LINE_ENDS))
        if char == "\\":
            return Node(chars=self._escape(in_class=False))
        if char in "*+?{}":
            self._refuse(f"{char!r} with nothing before it")
        return Node(chars=((ord(char), ord(char)),))

    def _repeated(self, node: Node) -> Node:
        char = self._peek()
        if char in {"*", "+", "?"}:
            self._at += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        elif char == "{":
            found = _QUANTIFIER.match(self._text, self._at)
            if found is None:
                self._refuse("'{' that begins no repetition")
            self._at = found.end()
            least = int(found[1])
            most = int(found[3]) if found[3] else None if found[2] else least
        else:
            return node
        if max(least, most or 0) > REPETITIONS_MAX or (most is not None and most < least):
            self._refuse(f"a repetition of more than {REPETITIONS_MAX}, or below its start")
        if self._peek() == "?":  # reluctant: the language is the same
            self._at += 1
        if self._peek() in {"*", "+", "?", "{"}:
            self._refuse("a repetition of a repetition")
        return replace(node, least=least, most=most)

    def _class(self) -> Ranges:
        negated = self._peek() == "^"
        self._at += negated
        found: list[tuple[int, int]] = []
        while self._peek() != "]":
            first = self._class_part()
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in {"]", ""}:
                self._at += 1
                last = self._class_part()
                if len(first) != 1 or len(last) != 1 or first[0][0] > last[0][1]:
                    self._refuse("a range that is none")
                first = ((first[0][0], last[0][1]),)
            found += first
        self._at += 1
        if negated and any(part in found for part in (_NO_DIGIT[0], _NO_SPACE[1])):
            self._refuse("an opposite in a negated class")
        ranges = _joined(found)
        if not (ranges or negated):
            self._refuse("an empty class")
        return _opposite(ranges) if negated else ranges

    def _class_part(self) -> Ranges:
        char = self._take()
        return self._escape(in_class=True) if char == "\\" else ((ord(char), ord(char)),)

    def _escape(self, *, in_class: bool) -> Ranges:
        char = self._take()
        known = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
        known |= {"D": _NO_DIGIT, "W": _NO_WORD, "S": _NO_SPACE}
        if char in known:
            return known[char]
        if char in _CONTROLS and not (char == "0" and self._peek().isdigit()):
            code = _CONTROLS[char]
        elif char == "b" and in_class:
            code = 8
        elif char in {"x", "u"}:
            digits = self._text[self._at : self._at + (2 if char == "x" else 4)]
            if not re.fullmatch("[0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}", digits):
                self._refuse(f"'\\{char}' without its digits")
            self._at += len(digits)
            code = int(digits, 16)
        elif char.isalnum():
            self._refuse(f"'\\{char}'")
        else:
            code = ord(char)
        return ((code, code),)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        if self._at >= len(self._text):
            self._refuse("an end in the middle")
        self._at += 1
        return self._text[self._at - 1]

    def _refuse(self, what: str) -> NoReturn:
        raise PatternRefused(f"{what} is not supported (character {self._at})")


def _joined(ranges: list[tuple[int, int]]) -> Ranges:
    """Sorted, without overlaps."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return tuple(joined)


def _opposite(ranges: Ranges) -> Ranges:
    found, start = [], 0
    for first, last in ranges:
        if start < first:
            found.append((start, first - 1))
        start = last + 1
    return (*found, (start, _LAST)) if start <= _LAST else tuple(found)


def _options_text(options: tuple[tuple[Node, ...], ...]) -> str:
    texts = [" ".join(node.text() for node in option) or '""' for option in options]
    return f"({' | '.join(texts)})"


def _class_text(ranges: Ranges) -> str:
    """One character of the ranges, as it stands in a JSON string."""
    plain = [
        (max(first, low), min(last, high))
        for first, last in ranges
        for low, high in _PLAIN
        if first <= high and low <= last
    ]
    parts = []
    if plain:
        spans = "".join(f"{_char(low)}-{_char(high)}" for low, high in plain)
        parts.append(f"[{spans}]")
    escapes = [
        name for code, name in _ESCAPED.items() if any(low <= code <= high for low, high in ranges)
    ]
    if escapes:
        names = "".join(f"\\x{ord(name):02X}" for name in escapes)
        parts.append(rf'"\\" [{names}]')
    if not parts:
        raise PatternRefused("a character that no JSON string can hold is not supported")
    return parts[0] if len(parts) == 1 and plain else f"({' | '.join(parts)})"


def _char(code: int) -> str:
    char = chr(code)
    return char if char.isascii() and char.isalnum() else f"\\U{code:08X}"
