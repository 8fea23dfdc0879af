"""An answer's text taken apart while it comes: thoughts, what is said, and calls of tools.

The result depends on the text alone, not on where its pieces begin and end; and every character of
it is in exactly one segment, so nothing is lost. What looks like a call and is none is content.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec

from local_runtime.engines.contract import ToolCallPiece
from local_runtime.engines.llama.call_reader import CallReader, NotACall
from local_runtime.engines.llama.tool_syntax import ReasoningTags, ToolSyntax

_NO_CALLS: list[ToolCallPiece] = []


class Kind(Enum):
    """What a segment of the answer is. ``FORM``: marks and space around the other three."""

    CONTENT = "content"
    REASONING = "reasoning"
    CALL = "call"
    FORM = "form"


class Segment(msgspec.Struct, frozen=True):
    """``text`` as the model wrote it; ``calls`` are the parts of calls that it amounts to."""

    kind: Kind
    text: str
    calls: list[ToolCallPiece] = _NO_CALLS


class _Mode(Enum):
    START = 0  # nothing but space so far: thoughts, a bare call or content may begin
    REASONING = 1
    BEHIND = 2  # thoughts or calls: space in front of what follows is form
    CONTENT = 3
    CALL = 4


class ReplyReader:
    """One answer. ``push`` text as it comes, ``finish`` once at its end."""

    def __init__(
        self,
        *,
        reasoning: Sequence[ReasoningTags] = (),
        thinking: ReasoningTags | None = None,
        syntax: ToolSyntax | None = None,
        functions: Mapping[str, dict[str, Any]] | None = None,
        trusted: bool = False,
        only_calls: bool = False,
    ) -> None:
        """``thinking``: the prompt has opened these tags already. ``trusted``: see CallReader.

        ``section`` is the section of calls that the text is in, ``since_opened`` what came behind
        the text that opened it; ``calls`` counts the calls that have begun. ``since_thought`` is
        what was pushed together with the end of the thoughts and came behind it. ``only_calls``:
        a grammar leaves room for nothing else, so what is no call yet at the end is part of one.
        """
        self.trusted = trusted
        self.calls = 0
        self.section: CallReader | None = None
        self.since_opened = ""
        self.since_thought = ""
        self.settled = False  # for whoever drives it: whether this section was dealt with
        self._only_calls = only_calls
        self._reasoning = tuple(reasoning)
        self._tags = thinking
        self._syntax = syntax
        self._functions = functions or {}
        self._mode = _Mode.REASONING if thinking else _Mode.START
        self._thought = False  # whether thoughts have begun to come
        self._may_be_bare = syntax is not None and syntax.bare
        self._silent = syntax.silent if syntax else ()
        opens = (syntax.opens, *syntax.opens_too) if syntax else ()
        self._markers = (*opens, *self._silent)
        self._pending = ""
        self._out: list[Segment] = []

    @property
    def thinking(self) -> bool:
        """Whether what comes now are thoughts."""
        return self._mode is _Mode.REASONING

    def push(self, text: str) -> list[Segment]:
        """Segments that have become certain."""
        self._pending += text
        while self._pending and self._advance():
            pass
        out, self._out = self._out, []
        return out

    def finish(self) -> list[Segment]:
        """The answer is over: what was held back is what it looks like."""
        section = self.section
        if section is not None and (
            self._only_calls or (section.trusted and (section.under_way or not section.bare))
        ):
            self._emit(Kind.FORM, len(self._pending))  # the beginning of a call
            self.section, self._mode = None, _Mode.BEHIND
        while self._mode is _Mode.CALL:
            self._give_up()
            while self._pending and self._advance():
                pass
        if self._pending:
            # Space behind calls is form; behind nothing at all it is what the model said.
            kind = Kind.CONTENT
            if self._mode is _Mode.REASONING:
                kind = Kind.REASONING
            elif self._only_calls or (self._mode is _Mode.BEHIND and self._pending.isspace()):
                kind = Kind.FORM
            self._emit(kind, len(self._pending))
        out, self._out = self._out, []
        return out

    def _emit(self, kind: Kind, count: int) -> None:
        if count:
            self._out.append(Segment(kind, self._pending[:count]))
            self._pending = self._pending[count:]

    def _advance(self) -> bool:
        """Do what can be done with the pending text; False where more of it has to come."""
        if self._mode is _Mode.CALL:
            return self._read_calls()
        if self._mode is _Mode.REASONING:
            return self._think()
        if self._mode is _Mode.CONTENT:
            return self._say()
        return self._begin()

    def _begin(self) -> bool:
        """At the start, and behind thoughts or calls."""
        begins = self._pending.lstrip()
        space = len(self._pending) - len(begins)
        if not begins:
            return False
        if self._mode is _Mode.START:
            for tags in self._reasoning:
                if begins.startswith(tags.opens):
                    self._emit(Kind.FORM, space + len(tags.opens))
                    self._tags, self._mode = tags, _Mode.REASONING
                    return True
        opens = [tags.opens for tags in self._reasoning] if self._mode is _Mode.START else []
        for marker in self._markers:
            if begins.startswith(marker):
                self._emit(Kind.FORM, space)
                self._mode = _Mode.CONTENT
                return True
        if any(marker.startswith(begins) for marker in (*self._markers, *opens)):
            return False
        if self._may_be_bare and begins[0] == "{":
            self._open(space, bare=True)
            return True
        if self._thought:
            self._emit(Kind.FORM, space)
        self._mode, self._thought, self._may_be_bare = _Mode.CONTENT, False, False
        return True

    def _think(self) -> bool:
        assert self._tags is not None
        if not self._thought:
            begins = self._pending.lstrip()
            if not begins:
                return False
            self._emit(Kind.FORM, len(self._pending) - len(begins))
            self._thought = True
        closes = self._tags.closes
        at = self._pending.find(closes)
        if at >= 0:
            self._emit(Kind.REASONING, len(self._pending[:at].rstrip()))
            self._emit(Kind.FORM, self._pending.index(closes) + len(closes))
            self.since_thought = self._pending
            self._mode = _Mode.BEHIND
            return True
        held = _held_back(self._pending, (closes,))
        thoughts = self._pending[: len(self._pending) - held]
        self._emit(Kind.REASONING, len(thoughts.rstrip()))
        return False

    def _say(self) -> bool:
        found = [(at, m) for m in self._markers if (at := self._pending.find(m)) >= 0]
        if not found:
            self._emit(Kind.CONTENT, len(self._pending) - _held_back(self._pending, self._markers))
            return False
        at, marker = min(found)
        self._emit(Kind.CONTENT, at)
        if marker in self._silent:
            self._emit(Kind.FORM, len(marker))
            self._mode = _Mode.START if marker.startswith("<|start|>") else _Mode.CONTENT
            return True
        self._open(len(marker), bare=False)
        return True

    def _open(self, count: int, *, bare: bool) -> None:
        """A section of calls begins behind ``count`` characters, which are held back with it."""
        assert self._syntax is not None
        self.section = CallReader(
            self._syntax, self._functions, calls=self.calls, bare=bare, trusted=self.trusted
        )
        self._marker = count
        self._read = count
        self._mode = _Mode.CALL
        self.since_opened = ""
        self.settled = False

    def _read_calls(self) -> bool:
        reader = self.section
        assert reader is not None
        while self._read < len(self._pending):
            character = self._pending[self._read]
            self._read += 1
            self.since_opened += character
            before = reader.calls
            try:
                calls = reader.push(character)
            except NotACall:
                self._give_up()
                return True
            if reader.ended:
                self._read -= reader.unread is not None
            done = reader.calls > before or (reader.ended and reader.unread is None)
            if calls or done or reader.under_way:
                self._out.append(Segment(Kind.CALL, self._pending[: self._read], calls))
                self._pending = self._pending[self._read :]
                self._marker = self._read = 0
                self.calls = max([self.calls, *(call.index + 1 for call in calls)])
            if reader.ended:
                self.section = None
                self._mode = _Mode.BEHIND
                return True
        return False

    def _give_up(self) -> None:
        """What has not become part of a call is content, the text that opened it included.

        What is behind that text may open another one.
        """
        opened = self._marker
        self.section = None
        if self.calls and self._pending.isspace():
            self._mode = _Mode.BEHIND
            return
        self._mode = _Mode.CONTENT
        self._may_be_bare = False
        self._emit(Kind.CONTENT, opened)


def _held_back(text: str, markers: Sequence[str]) -> int:
    """How many characters at the end of the text may be the beginning of one of the markers."""
    longest = max(map(len, markers), default=0) - 1
    for count in range(min(longest, len(text)), 0, -1):
        end = text[-count:]
        if any(marker.startswith(end) for marker in markers):
            return count
    return 0
