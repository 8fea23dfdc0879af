"""``response_format`` as a GBNF grammar: JSON Schema in, the language of its valid texts out.

The rule is never to fail open: every text of the grammar is valid under the schema, and a keyword
that cannot be guaranteed is refused by name and place. Where the schema leaves a choice the grammar
may take the narrower side: no properties beyond those that are named, in their order, numbers of
few digits, a part of each format. White space is bounded, as small models fill the room they get.
JSON Schema 2020-12 and what OpenAPI adds; GBNF as in ggml-org/llama.cpp, ``grammars/README.md``.
"""

import json
from typing import Any, NoReturn

from msgspec import UnsetType

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.grammar_formats import FORMATS, NUMBER_FORMATS
from local_runtime.engines.llama.grammar_members import Member, chain, row
from local_runtime.engines.llama.grammar_numbers import number_rule
from local_runtime.engines.llama.grammar_regex import PatternRefused, pattern_rule
from local_runtime.engines.llama.schema_merge import DEPTH_MAX, TYPES, Flat, flatten
from local_runtime.engines.llama.schema_values import KNOWN, fits

RULES_MAX = 4_000
GRAMMAR_CHARACTERS_MAX = 256 * 1024
REPETITIONS_MAX = 2_000  # llama.cpp's own limit
REPEATED_MAX = 50_000  # all repetitions of a grammar together
_CHUNK = 100
_LENGTH_MAX = _CHUNK * REPETITIONS_MAX

_OF_TYPE = {
    "object": {
        "properties", "required", "additionalProperties", "patternProperties", "propertyNames",
        "minProperties", "maxProperties",
    },
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "format", "pattern"},
    "integer": {
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format",
    },
    "boolean": set[str](),
    "null": set[str](),
}  # fmt: skip
_OF_TYPE["number"] = _OF_TYPE["integer"]
_KEYWORDS = set[str]().union({"type", "enum"}, *_OF_TYPE.values())
_PRIMITIVES = {
    # Ranges that are allowed, not those that are not: a character that comes in pieces is let in
    # piece by piece only by these.
    "char": r'[ !#-\[\]-~\U00000080-\U0000D7FF\U0000E000-\U0010FFFF] | "\\" '
    r'(["\\/bfnrt] | "u" plane)',
    # Four hexadecimal digits that are no surrogate: half a pair is no character.
    "plane": "[0-9a-cA-Ce-fE-F] hex{3} | [dD] [0-7] hex{2}",
    "hex": "[0-9a-fA-F]",
    "string": r'"\"" char* "\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,14})',
    "number": 'integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (member ("," ws member)*)? ws "}"',
    "member": 'string ":" ws value',
    "array": '"[" ws (value ("," ws value)*)? ws "]"',
    "ws": r'| " " | "\n" [ \t]{0,16}',
}


def grammar_of(response_format: dict[str, Any] | UnsetType | None) -> str | None:
    """The grammar, or None for plain text. Raises RequestRefused."""
    if not isinstance(response_format, dict):
        return None
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return _Builder({}).grammar_with_root("object")
    if kind != "json_schema":
        refuse(f"type must be text, json_object or json_schema, not {str(kind)[:32]!r}.")
    wrapper = response_format.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if not isinstance(schema, (dict, bool)):
        refuse("json_schema.schema is missing.")
    builder = _Builder(schema)
    root = builder.visit(schema, "#", 0)
    if root is None:
        refuse("no value fits the schema, as far as can be guaranteed.")
    return builder.grammar_with_root(root)


def refuse(reason: str) -> NoReturn:
    """The format cannot be guaranteed, so it is not attempted."""
    raise RequestRefused(f"response_format: {reason}", param="response_format")


class _Builder:
    """Collects rules. Methods that return a rule return its name, and None where no text fits."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._rules: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._visited: dict[str, str | None] = {}
        self._repeated = 0

    def grammar_with_root(self, name: str) -> str:
        """All rules, those that they use included, as GBNF text."""
        lines = [f"root ::= {name}"]
        lines += [f"{rule} ::= {body}" for rule, body in (_PRIMITIVES | self._rules).items()]
        text = "\n".join(lines) + "\n"
        if len(text) > GRAMMAR_CHARACTERS_MAX:
            refuse("the schema is too large.")
        return text

    def visit(self, schema: Any, where: str, depth: int) -> str | None:
        """The rule for one schema, which stands at ``where``."""
        if depth > DEPTH_MAX:
            refuse(f"at {where}: the schema is nested more than {DEPTH_MAX} deep.")

        def refuse_here(reason: str) -> NoReturn:
            refuse(f"at {where[:256]}: {reason}")

        found = []
        for flat in flatten(schema, self._root, refuse_here):
            key = json.dumps(flat)
            if key not in self._visited:
                # Named before its parts are looked at: one of them may be this one again.
                name = self._visited[key] = f"s-{len(self._visited)}"
                body = _Node(self, flat, where, depth).body()
                if body is None:
                    self._visited[key] = None
                else:
                    self._add(name, body)
            rule = self._visited[key]
            if rule is not None:
                found.append(rule)
        if len(found) < 2:
            return found[0] if found else None
        return self.rule(" | ".join(dict.fromkeys(found)))

    def rule(self, body: str) -> str:
        """A name for the body, the same for the same body."""
        name = self._names.get(body)
        if name is None:
            name = self._names[body] = f"r-{len(self._names)}"
            self._add(name, body)
        return name

    def repeats(self, count: int) -> None:
        """A repetition is written out by llama.cpp; all of them must stay within bounds."""
        self._repeated += count
        if self._repeated > REPEATED_MAX:
            refuse("the schema is too large: the greatest lengths and counts are too many.")

    def _add(self, name: str, body: str) -> None:
        if len(self._rules) >= RULES_MAX:
            refuse("the schema is too large.")
        self._rules[name] = body


class _Node:
    """One plain schema on its way to a rule."""

    def __init__(self, builder: _Builder, flat: Flat, where: str, depth: int) -> None:
        self._builder = builder
        self._flat = flat
        self._where = where
        self._depth = depth

    def body(self) -> str | None:
        flat = self._flat
        for key in flat.keys() - _KEYWORDS:
            self._refuse(f"the keyword {key[:64]!r} is not supported.")
        if "enum" in flat:
            return self._constants()
        types = flat.get("type")
        if types is None:
            types = [name for name in TYPES if flat.keys() & _OF_TYPE[name]]
            if not types:
                return "value"
            if "number" in types:
                types.remove("integer")
        bodies = [self._of_type(name) for name in types]
        return " | ".join(body for body in bodies if body is not None) or None

    def _of_type(self, name: str) -> str | None:
        own = {key: self._flat[key] for key in _OF_TYPE[name] & self._flat.keys()}
        if not own:
            return name
        if name == "object":
            return self._object(own)
        if name == "array":
            return self._array(own)
        if name == "string":
            return self._string(own)
        return self._number(own, whole=name == "integer")

    def _number(self, own: Flat, *, whole: bool) -> str | None:
        form = own.pop("format", None)
        if form is not None and not (isinstance(form, str) and form in NUMBER_FORMATS):
            return None if "string" in self._flat.get("type", ["string"]) else self._no_format(form)
        for key, bound in NUMBER_FORMATS.get(form or "", {}).items():
            pick = max if key == "minimum" else min
            own[key] = pick(own.get(key, bound), bound)
        if not own:
            return "integer" if whole else "number"
        body = number_rule(own, whole=whole, name=self._builder.rule)
        if body is None:
            self._refuse(f"the bounds of a number leave nothing that can be guaranteed: {own}.")
        return body

    def _object(self, own: Flat) -> str | None:
        properties: dict[str, Any] = dict(own.get("properties", {}))
        more = own.get("additionalProperties", True)
        required = own.get("required", [])
        for name in required:
            properties.setdefault(name, more)
        least, most = self._bounds("minProperties", "maxProperties")
        if not properties:
            return self._map(own, least, most)
        if "patternProperties" in own or "propertyNames" in own:
            self._refuse("patternProperties and propertyNames beside properties are not supported.")
        members = []
        for name, schema in properties.items():
            value = self._visit(schema, "properties", name)
            if value is not None:
                rule = self._builder.rule(f'{json_literal(name)} ":" ws {value}')
                members.append(Member(rule, name in required))
            elif name in required:
                return None
        body = chain(members, least, most, self._builder.rule)
        if body is None and least > len(members) and more is not False:
            self._refuse("minProperties above the number of named properties is not supported.")
        return None if body is None else f'"{{" ws {body} ws "}}"'

    def _map(self, own: Flat, least: int, most: int | None) -> str | None:
        """An object whose names are free."""
        patterns = own.get("patternProperties", {})
        more = own.get("additionalProperties", True)
        key: str | None = "string"
        if patterns:
            # A name may match several patterns, or none and be additional: one can be guaranteed.
            if not isinstance(patterns, dict) or len(patterns) > 1 or "propertyNames" in own:
                self._refuse("more than one of patternProperties is not supported.")
            pattern, more = next(iter(patterns.items()))
            key = self._visit({"type": "string", "pattern": pattern}, "patternProperties", pattern)
        elif "propertyNames" in own:
            names = own["propertyNames"]
            key = self._visit({"allOf": [names, {"type": "string"}]}, "propertyNames")
        if least > 1:
            self._refuse("minProperties above 1 without named properties is not supported.")
        value = self._visit(more, "additionalProperties") if key is not None else None
        if value is None or most == 0:
            return '"{" ws "}"' if least == 0 else None
        member = self._builder.rule(f'{key} ":" ws {value}')
        members = row([], member, least, most, self._builder.rule)
        self._builder.repeats(most or 0)
        return f'"{{" ws {members} ws "}}"'

    def _array(self, own: Flat) -> str | None:
        least, most = self._bounds("minItems", "maxItems")
        fixed = []
        for at, schema in enumerate(own.get("prefixItems", [])):
            rule = self._visit(schema, "prefixItems", str(at))
            if rule is None:
                most = at if most is None else min(at, most)
                break
            fixed.append(rule)
        if own.get("uniqueItems") is True and (most is None or most > 1):
            body = self._unique(own, least, most)
        else:
            item = None
            if most is None or most > len(fixed):
                item = self._visit(own.get("items", True), "items")
            body = row(fixed, item, least, most, self._builder.rule)
            self._builder.repeats(max(least, most or 0))
        return None if body is None else f'"[" ws {body} ws "]"'

    def _unique(self, own: Flat, least: int, most: int | None) -> str | None:
        """Each value at most once, in the order in which the schema names them."""
        options = flatten(own.get("items", True), self._builder._root, self._refuse)
        values: list[str] = []
        for flat in options:
            given = flat.get("enum", [True, False] if flat.get("type") == ["boolean"] else None)
            if given is None or own.get("prefixItems") or flat.keys() - KNOWN:
                self._refuse("uniqueItems is supported only where the items are an enum.")
            values += [json_literal(value) for value in given if fits(value, flat)]
        members = [Member(text, required=False) for text in dict.fromkeys(values)]
        return chain(members, least, most, self._builder.rule)

    def _string(self, own: Flat) -> str | None:
        least, most = self._bounds("minLength", "maxLength", limit=_LENGTH_MAX)
        form = own.get("format")
        if form is not None:
            if not (isinstance(form, str) and form in FORMATS) or "pattern" in own:
                self._no_format(form)
            pattern: Any = FORMATS[form]
        else:
            pattern = own.get("pattern")
        if pattern is not None:
            if not isinstance(pattern, str):
                self._refuse("pattern must be a string.")
            try:
                body = pattern_rule(pattern, least, most)
            except PatternRefused as refused:
                self._refuse(f"{'format' if form else 'pattern'} {pattern[:64]!r}: {refused}.")
            return rf'"\"" {body} "\""'
        return rf'"\"" {self._characters(least, most)} "\""'

    def _characters(self, least: int, most: int | None) -> str:
        if max(least, most or 0) <= REPETITIONS_MAX:
            self._builder.repeats(max(least, most or 0))
            return f"char{{{least},{'' if most is None else most}}}"
        # In chunks: llama.cpp takes more repetitions than its limit for any number.
        self._builder.repeats(max(least, most or 0) // _CHUNK + 3 * _CHUNK)
        chunk = self._builder.rule(f"char{{{_CHUNK}}}")
        if least:
            start = f"{chunk}{{{least // _CHUNK}}} char{{{least % _CHUNK}}}"
            rest = None if most is None else most - least
            return start + " " + (self._characters(0, rest) if rest != 0 else '""')
        assert most is not None
        whole, rest = divmod(most, _CHUNK)
        last = f"char{{0,{_CHUNK - 1}}}"
        return f"({chunk}{{0,{whole - 1}}} {last} | {chunk}{{{whole}}} char{{0,{rest}}})"

    def _constants(self) -> str | None:
        beside = self._flat.keys() - KNOWN
        if beside:
            self._refuse(f"the keyword {min(beside)!r} beside enum or const is not supported.")
        values = [value for value in self._flat["enum"] if fits(value, self._flat)]
        return " | ".join(dict.fromkeys(map(json_literal, values))) or None

    def _bounds(
        self, lower: str, upper: str, limit: int = REPETITIONS_MAX
    ) -> tuple[int, int | None]:
        """Both are checked; an upper one beyond what can be counted becomes the limit."""
        least, most = self._flat.get(lower, 0), self._flat.get(upper)
        for bound in (least, most):
            if bound is None:
                continue
            if isinstance(bound, bool) or not isinstance(bound, (int, float)) or bound % 1:
                self._refuse(f"{lower} and {upper} must be whole numbers.")
            if bound < 0 or (bound > limit and bound is least):
                self._refuse(
                    f"{lower} and {upper} must be at least 0, and {lower} at most {limit}."
                )
        if most is not None and most < least:
            self._refuse(f"{upper} is less than {lower}.")
        return int(least), None if most is None else min(int(most), limit)

    def _visit(self, schema: Any, *steps: str) -> str | None:
        path = "/".join(step.replace("~", "~0").replace("/", "~1") for step in steps)
        return self._builder.visit(schema, f"{self._where}/{path}", self._depth + 1)

    def _no_format(self, form: Any) -> NoReturn:
        self._refuse(f"the format {str(form)[:32]!r} is not supported here.")

    def _refuse(self, reason: str) -> NoReturn:
        refuse(f"at {self._where[:256]}: {reason}")


def json_literal(value: Any) -> str:
    """A GBNF literal of the value's JSON text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    escaped = "".join(
        "\\" + char if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08X}"
        for char in text
    )
    return f'"{escaped}"'
