"""Reads calls of tools out of an answer, one character at a time.

What turns out to be no call is not lost: ``NotACall`` says so, and whoever drives the reader has
the text. Without a grammar over the answer a call is given out when all of it has been read and
makes sense; with one (``trusted``) its arguments are given out as they come.
"""

import json
import secrets
from collections.abc import Collection, Generator, Mapping
from typing import Any

import msgspec

from local_runtime.engines.contract import ToolCallPiece
from local_runtime.engines.llama.tool_syntax import ToolSyntax

_SPACE = " \t\r\n"
_KEYS = frozenset({"name", "function", "arguments", "parameters", "id", "type"})
_NAME_LENGTH_MAX = 64
_ID_LENGTH_MAX = 128
_DEPTH_MAX = 256
# What stands in JSON outside of strings and brackets.
_PLAIN = frozenset("0123456789+-.eEtrufalsn,:" + _SPACE)

Steps = Generator[None, str, None]
Reads = Generator[None, str, str]


class NotACall(Exception):
    """The text does not have the form of a call, or names no function of the request."""


class CallReader:
    """One section of calls, from behind the text that opens it.

    ``ended``: the section is over; then ``unread`` is set where its last character is not part of
    it. ``under_way``: a call has been given out in part. ``named``: a bare call has got as far as
    the name of a function, and ``since_named`` is what came behind that name. ``calls`` counts
    those of the whole answer.
    """

    def __init__(
        self,
        syntax: ToolSyntax,
        functions: Mapping[str, dict[str, Any]],
        *,
        calls: int = 0,
        bare: bool = False,
        trusted: bool = False,
    ) -> None:
        """``functions``: their schemas by name. ``bare``: there was no text that opens it."""
        self.trusted = trusted
        self.calls = calls
        self.ended = False
        self.named = ""
        self.since_named = ""
        self.unread: str | None = None
        self._syntax = syntax
        self._functions = functions
        self.bare = bare
        self._out: list[ToolCallPiece] = []
        self._name = ""
        self._arguments: list[str] = []
        self._told = 0  # parts of the arguments that have been given out
        self.under_way = False
        self._steps = self._section()
        next(self._steps)

    def push(self, character: str) -> list[ToolCallPiece]:
        """Take one character; what may be given out now. Raises NotACall."""
        named = self.named
        try:
            self._steps.send(character)
        except StopIteration:
            self.ended = True
        if named:
            self.since_named += character
        if self.trusted:
            self._tell_arguments()
        out, self._out = self._out, []
        return out

    def _section(self) -> Steps:
        syntax = self._syntax
        if self.bare:
            yield from self._bare_calls()
            return
        yield from self._spaces()
        if syntax.listed:
            yield from self._literal("[")
            yield from self._list_of_calls()
        elif syntax.several:
            yield from self._literal(syntax.each)
            while True:
                yield from self._call()
                yield from self._spaces()
                found = yield from self._one_of((syntax.each, syntax.closes))
                if found == syntax.closes:
                    return
        else:
            yield from self._call()
        if syntax.closes:
            yield from self._spaces()
            yield from self._literal(syntax.closes)

    def _list_of_calls(self) -> Steps:
        while True:
            yield from self._spaces()
            yield from self._call()
            yield from self._spaces()
            character = yield from self._take()
            if character == "]":
                return
            _require(character == ",")

    def _bare_calls(self) -> Steps:
        while True:
            yield from self._call()
            yield from self._spaces()
            if (yield from self._peek()) in ";,":
                yield from self._take()
                yield from self._spaces()
            if (yield from self._peek()) != "{":
                return

    def _call(self) -> Steps:
        self._name = ""
        self._arguments = []
        self._told = 0
        self.under_way = False
        syntax = self._syntax
        if syntax.wrapped:
            yield from self._literal("{")
            yield from self._members(0)
        elif syntax.tagged:
            yield from self._tags()
        else:
            yield from self._read_name()
            if syntax.before_id:
                found = yield from self._one_of((syntax.before_id, syntax.between))
                if found == syntax.before_id:
                    yield from self._until(syntax.between, _ID_LENGTH_MAX)
            else:
                yield from self._one_of((syntax.between, *syntax.between_too))
            yield from self._spaces()
            _require((yield from self._peek()) == "{")
            yield from self._value(self._arguments)
        self._finish()
        if syntax.after:
            yield from self._literal(syntax.after)

    def _members(self, depth: int) -> Steps:
        """The members of a wrapped call, from behind the brace; some put them one level down."""
        while True:
            yield from self._spaces()
            yield from self._literal('"')
            key = yield from self._string(limit=16)
            _require(key in _KEYS)
            yield from self._spaces()
            yield from self._literal(":")
            yield from self._spaces()
            begins = yield from self._peek()
            if key == "name" or (key == "function" and begins == '"'):
                yield from self._literal('"')
                name = yield from self._string(limit=_NAME_LENGTH_MAX)
                self._know(name)
                if self.bare and not depth and not self.trusted and not self._arguments:
                    self.named = name
            elif key == "function":
                yield from self._literal("{")
                _require(depth == 0)
                yield from self._members(1)
            elif key in {"arguments", "parameters"}:
                _require(not self._arguments)
                yield from self._value(self._arguments)
            else:
                yield from self._value([])
            yield from self._spaces()
            character = yield from self._take()
            if character == "}":
                return
            _require(character == ",")

    def _tags(self) -> Steps:
        """One call as tags: ``<function=NAME>``, and ``<parameter=KEY>`` for each argument."""
        yield from self._literal("<function=")
        yield from self._read_name()
        yield from self._literal(">")
        keys: set[str] = set()
        properties = self._functions[self._name].get("properties")
        schemas = properties if isinstance(properties, dict) else {}
        while True:
            yield from self._spaces()
            if (yield from self._one_of(("<parameter=", "</function>"))) == "</function>":
                break
            key = yield from self._until(">", _ID_LENGTH_MAX)
            text = yield from self._until("</parameter>", None)
            _require(key not in keys)
            keys.add(key)
            value = _typed(text.removeprefix("\n").removesuffix("\n"), schemas.get(key))
            member = f"{_json(key)}: {_json(value)}"
            self._arguments.append((", " if self._arguments else "{") + member)
        self._arguments.append("}" if self._arguments else "{}")

    def _read_name(self) -> Steps:
        name = ""
        while (character := (yield from self._peek())).isalnum() or character in "_-":
            name += yield from self._take()
            _require(len(name) <= _NAME_LENGTH_MAX)
        self._know(name)

    def _know(self, name: str) -> None:
        _require(name in self._functions and not self._name)
        self._name = name

    def _finish(self) -> None:
        """The call is complete: give it out, or the rest of it."""
        _require(bool(self._name) and (bool(self._arguments) or not self.bare))
        if not self._arguments:
            self._arguments = ["{}"]
        if not self.under_way:
            self._arguments = [_object_in("".join(self._arguments))]
        self._tell_arguments()
        self.under_way = False
        self._name = ""
        self.named = self.since_named = ""
        self.calls += 1

    def _tell_arguments(self) -> None:
        """Give out what has been read of the arguments and was not given out yet."""
        if not self._name or self._told == len(self._arguments):
            return
        id_ = "" if self.under_way else f"call_{secrets.token_hex(12)}"
        self._out.append(
            ToolCallPiece(
                index=self.calls,
                id=id_,
                name="" if self.under_way else self._name,
                arguments="".join(self._arguments[self._told :]),
            )
        )
        self.under_way = True
        self._told = len(self._arguments)

    # The smaller steps. Each `yield` waits for a character.

    def _peek(self) -> Reads:
        if self.unread is None:
            self.unread = yield
        return self.unread

    def _take(self) -> Reads:
        character = yield from self._peek()
        self.unread = None
        return character

    def _spaces(self) -> Steps:
        while (yield from self._peek()) in _SPACE:
            self.unread = None

    def _literal(self, text: str) -> Steps:
        for expected in text:
            character = yield from self._take()
            _require(character == expected)

    def _one_of(self, texts: Collection[str]) -> Reads:
        """Whichever of the texts comes; none of them may begin with another one."""
        read = ""
        while read not in texts:
            read += yield from self._take()
            _require(any(text.startswith(read) for text in texts))
        return read

    def _until(self, end: str, limit: int | None) -> Reads:
        """The text before ``end``, which is read as well."""
        read: list[str] = []
        matched = ""
        while matched != end:
            character = yield from self._take()
            read.append(character)
            matched = (matched + character)[-len(end) :]
            _require(limit is None or len(read) <= limit + len(end))
        return "".join(read)[: -len(end)]

    def _string(self, *, limit: int) -> Reads:
        """A short JSON string, from behind its first quote."""
        read = ['"']
        yield from self._rest_of_string(read, limit=limit * 6)
        text: str = _decoded("".join(read))
        return text

    def _rest_of_string(self, into: list[str], *, limit: int | None = None) -> Steps:
        character = ""
        while character != '"':
            character = yield from self._take()
            into.append(character)
            if character == "\\":
                into.append((yield from self._take()))
            _require(limit is None or len(into) <= limit)

    def _value(self, into: list[str]) -> Steps:
        """One JSON value. Whether it is well formed is seen when it is complete."""
        open_: list[str] = []
        while True:
            character = yield from self._peek()
            if not open_ and into and character in ",}" + _SPACE:
                return  # behind a number, or the like
            self.unread = None
            into.append(character)
            if character == '"':
                yield from self._rest_of_string(into)
            elif character in "{[":
                open_.append("}" if character == "{" else "]")
                _require(len(open_) <= _DEPTH_MAX)
            elif character in "}]":
                _require(bool(open_) and open_.pop() == character)
            else:
                _require(character in _PLAIN)
                continue
            if not open_:
                return


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _require(holds: bool) -> None:
    if not holds:
        raise NotACall


def _decoded(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        raise NotACall from None


def _object_in(text: str) -> str:
    """The text of a JSON object; some models write it as a string once more."""
    found = _decoded(text)
    if isinstance(found, str):
        text, found = found, _decoded(found)
    _require(isinstance(found, dict))
    return text


def _typed(text: str, schema: Any) -> Any:
    """An argument out of a tag: text where the schema has texts, otherwise JSON if it is JSON."""
    keywords = schema if isinstance(schema, dict) else {}
    options = keywords.get("enum")
    texts = isinstance(options, list) and all(isinstance(option, str) for option in options)
    if keywords.get("type", "string" if texts else None) == "string":
        return text
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return text
    known = keywords.keys() & {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}
    return text if isinstance(found, str) and not known else found
