"""``response_format`` as a GBNF grammar: JSON Schema in, the language of its valid texts out.

The rule is never to fail open: every text of the grammar is valid under the schema, and a keyword
that cannot be guaranteed is refused by name. Where the schema leaves a choice the grammar may take
the narrower side (no additional properties, a fixed order of properties). JSON Schema 2020-12;
GBNF as in ggml-org/llama.cpp, ``grammars/README.md``.
"""

import json
from typing import Any, NoReturn

from msgspec import UnsetType

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.grammar_numbers import number_rule

DEPTH_MAX = 32
RULES_MAX = 2_000
GRAMMAR_CHARACTERS_MAX = 256 * 1024
REPETITIONS_MAX = 2_000  # llama.cpp's own limit

_ANNOTATIONS = frozenset(
    {
        "$anchor", "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated",
        "description", "discriminator", "example", "examples", "readOnly", "strict", "title",
        "writeOnly",
    }
)  # fmt: skip
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "format"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "boolean": set[str](),
    "null": set[str](),
}
_WHITESPACE = r'| " " | "\n" [ \t]{0,16}'
_PRIMITIVES = {
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" plane)',
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
    "ws": _WHITESPACE,
    "date": '[1-2] [0-9]{3} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? zone',
    "zone": '"Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]',
    "octet": '"25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9]? [0-9]',
    "label": "[a-z0-9] ([a-z0-9-]{0,20} [a-z0-9])?",
}
_FORMATS = {
    "date": "date",
    "time": "time",
    "date-time": 'date "T" time',
    "uuid": 'hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}',
    "ipv4": 'octet "." octet "." octet "." octet',
    "hostname": 'label ("." label){0,5}',
    "email": '[a-z0-9]{1,32} ("." [a-z0-9]{1,32}){0,3} "@" label ("." label){1,4}',
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
    if not isinstance(schema, dict):
        refuse("json_schema.schema is missing.")
    builder = _Builder(schema)
    return builder.grammar_with_root(builder.visit(schema, 0))


def refuse(reason: str) -> NoReturn:
    """The format cannot be guaranteed, so it is not attempted."""
    raise RequestRefused(f"response_format: {reason}", param="response_format")


class _Builder:
    """Collects rules; every ``_…`` method returns a rule's name."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._rules: dict[str, str] = {}
        self._refs: dict[str, str] = {}

    def grammar_with_root(self, name: str) -> str:
        """All rules, those that they use included, as GBNF text."""
        lines = [f"root ::= {name}"]
        lines += [f"{rule} ::= {body}" for rule, body in (_PRIMITIVES | self._rules).items()]
        text = "\n".join(lines) + "\n"
        if len(text) > GRAMMAR_CHARACTERS_MAX:
            refuse("the schema is too large.")
        return text

    def visit(self, schema: Any, depth: int) -> str:
        """The rule for one schema."""
        if depth > DEPTH_MAX:
            refuse(f"the schema is nested more than {DEPTH_MAX} deep.")
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            refuse("a schema must be an object.")
        keywords = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
        if not keywords:
            return "value"
        for name, visitor in (("$ref", self._ref), ("anyOf", self._union), ("oneOf", self._one)):
            if name in keywords:
                self._alone(keywords, name)
                return visitor(keywords[name], depth)
        if "allOf" in keywords:
            self._alone(keywords, "allOf")
            parts = keywords["allOf"]
            if not isinstance(parts, list) or len(parts) != 1:
                refuse("allOf of more than one schema is not supported.")
            return self.visit(parts[0], depth + 1)
        if "enum" in keywords or "const" in keywords:
            return self._constants(keywords)
        return self._typed(keywords, depth)

    def _typed(self, keywords: dict[str, Any], depth: int) -> str:
        types = keywords.get("type")
        if types is None:
            types = [name for name, own in _KEYWORDS.items() if own & keywords.keys()][:1]
        names = types if isinstance(types, list) else [types]
        if not names or not all(isinstance(name, str) and name in _KEYWORDS for name in names):
            refuse(f"keywords {sorted(keywords)[:5]} without a known type are not supported.")
        known = set[str]().union({"type"}, *(_KEYWORDS[name] for name in names))
        for key in keywords.keys() - known:
            refuse(f"the keyword {key[:64]!r} is not supported for {' or '.join(names)}.")
        rules = []
        for name in names:
            own = {key: keywords[key] for key in _KEYWORDS[name] & keywords.keys()}
            rules.append(self._of_type(name, own, depth))
        return rules[0] if len(rules) == 1 else self._rule(" | ".join(rules))

    def _of_type(self, name: str, own: dict[str, Any], depth: int) -> str:
        if not own:
            return name
        if name == "object":
            return self._object(own, depth)
        if name == "array":
            return self._array(own, depth)
        if name == "string":
            return self._string(own)
        body = number_rule(own, whole=name == "integer")
        if body is None:
            refuse(f"the bounds of a {name} leave nothing that can be guaranteed: {own}.")
        return self._rule(body)

    def _object(self, own: dict[str, Any], depth: int) -> str:
        properties = own.get("properties", {})
        required = own.get("required", [])
        more = own.get("additionalProperties", True)
        if not isinstance(properties, dict) or not isinstance(required, list):
            refuse("properties must be an object, and required a list.")
        properties = dict(properties)
        for name in required:
            if not isinstance(name, str) or (name not in properties and more is False):
                refuse(f"required names {str(name)[:64]!r}, which is not among the properties.")
            properties.setdefault(name, more)
        if not properties:
            if more is False:
                return self._rule('"{" ws "}"')
            member = self._rule(f'string ":" ws {self.visit(more, depth + 1)}')
            return self._rule(f'"{{" ws ({member} ("," ws {member})*)? ws "}}"')
        # From the last property to the first: what follows when something is before it (after a
        # comma), and what follows when nothing is.
        after = first = '""'
        for name, schema in reversed(properties.items()):
            value = self.visit(schema, depth + 1)
            member = self._rule(f'{_json_literal(name)} ":" ws {value}')
            if name in required:
                first = self._rule(f"{member} {after}")
                after = self._rule(f'"," ws {member} {after}')
            else:
                first = self._rule(f"{member} {after} | {first}")
                after = self._rule(f'("," ws {member})? {after}')
        return self._rule(f'"{{" ws {first} ws "}}"')

    def _array(self, own: dict[str, Any], depth: int) -> str:
        items = own.get("items", True)
        fixed = own.get("prefixItems", items if isinstance(items, list) else [])
        least, most = _bounds(own, "minItems", "maxItems")
        if fixed:
            if not isinstance(fixed, list) or least > len(fixed) or (most or 2**31) < len(fixed):
                refuse("prefixItems with a different number of items is not supported.")
            rules = ' "," ws '.join(self.visit(item, depth + 1) for item in fixed)
            return self._rule(f'"[" ws {rules} ws "]"')
        if items is False or most == 0:
            return self._rule('"[" ws "]"')
        item = self.visit(items, depth + 1)
        upper = "" if most is None else str(most - 1)
        body = f'{item} ("," ws {item}){{{max(0, least - 1)},{upper}}}'
        return self._rule(f'"[" ws {body if least else f"({body})?"} ws "]"')

    def _string(self, own: dict[str, Any]) -> str:
        if "format" in own:
            body = _FORMATS.get(own["format"]) if isinstance(own["format"], str) else None
            if body is None or len(own) > 1:
                refuse(f"the string format {str(own['format'])[:32]!r} is not supported here.")
            return self._rule(rf'"\"" {body} "\""')
        least, most = _bounds(own, "minLength", "maxLength")
        return self._rule(rf'"\"" char{{{least},{"" if most is None else most}}} "\""')

    def _constants(self, keywords: dict[str, Any]) -> str:
        for key in keywords.keys() - {"enum", "const", "type"}:
            refuse(f"the keyword {key[:64]!r} beside enum or const is not supported.")
        values = keywords.get("enum", [keywords["const"]] if "const" in keywords else [])
        if not isinstance(values, list) or ("enum" in keywords and "const" in keywords):
            refuse("enum must be a list, and cannot be combined with const.")
        types = keywords.get("type")
        names = types if isinstance(types, list) else [types]
        fitting = [v for v in values if types is None or any(_is_of(v, name) for name in names)]
        if not fitting:
            refuse("enum or const holds no value of its type.")
        return self._rule(" | ".join(_json_literal(value) for value in fitting))

    def _union(self, schemas: Any, depth: int) -> str:
        if not isinstance(schemas, list) or not schemas:
            refuse("anyOf and oneOf must be lists of schemas.")
        return self._rule(" | ".join(self.visit(schema, depth + 1) for schema in schemas))

    def _one(self, schemas: Any, depth: int) -> str:
        """Like anyOf, where no text can fit two of the schemas; that must be plain to see."""
        if isinstance(schemas, list):
            for at, schema in enumerate(schemas):
                for other in schemas[:at]:
                    if not _disjoint(self._resolved(schema), self._resolved(other)):
                        refuse("oneOf is supported only where the schemas exclude each other.")
        return self._union(schemas, depth)

    def _ref(self, reference: Any, depth: int) -> str:
        if not isinstance(reference, str):
            refuse("$ref must be a string.")
        if reference not in self._refs:
            name = self._refs[reference] = f"ref-{len(self._refs)}"
            self._rules[name] = self.visit(self._target(reference), depth + 1)
        return self._refs[reference]

    def _target(self, reference: str) -> Any:
        if not (reference == "#" or reference.startswith("#/")):
            refuse(f"$ref {reference[:64]!r} does not point into the schema.")
        target: Any = self._root
        for step in reference.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or name not in target:
                refuse(f"$ref {reference[:64]!r} points to nothing.")
            target = target[name]
        return target

    def _resolved(self, schema: Any) -> Any:
        for _ in range(DEPTH_MAX):
            if not (isinstance(schema, dict) and isinstance(schema.get("$ref"), str)):
                return schema
            schema = self._target(schema["$ref"])
        refuse("$ref refers to itself without an end.")

    def _alone(self, keywords: dict[str, Any], name: str) -> None:
        for key in keywords.keys() - {name}:
            refuse(f"the keyword {key[:64]!r} beside {name} is not supported.")

    def _rule(self, body: str) -> str:
        name = f"r-{len(self._rules)}"
        if len(self._rules) >= RULES_MAX:
            refuse("the schema is too large.")
        self._rules[name] = body
        return name


def _bounds(own: dict[str, Any], lower: str, upper: str) -> tuple[int, int | None]:
    least, most = own.get(lower, 0), own.get(upper)
    for bound in (least, most):
        if bound is not None and not (_is_of(bound, "integer") and 0 <= bound <= REPETITIONS_MAX):
            refuse(f"{lower} and {upper} must be whole numbers of at most {REPETITIONS_MAX}.")
    if most is not None and most < least:
        refuse(f"{upper} is less than {lower}.")
    return int(least), most


def _is_of(value: Any, name: Any) -> bool:
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return isinstance(name, str) and name in kinds and isinstance(value, kinds[name])


def _disjoint(one: Any, other: Any) -> bool:
    """Whether no value fits both schemas: different types, or a property that tells them apart."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    constants = [_constants_of(schema) for schema in (one, other)]
    if all(values is not None for values in constants):
        return not any(value in (constants[1] or []) for value in constants[0] or [])
    types = [schema.get("type") for schema in (one, other)]
    if all(isinstance(name, str) for name in types) and types[0] != types[1]:
        return set(types) != {"integer", "number"}
    mine, theirs = one.get("properties"), other.get("properties")
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return False
    return any(
        _disjoint(mine[name], theirs[name])
        for name in mine.keys() & theirs.keys()
        if name in one.get("required", ()) and name in other.get("required", ())
    )


def _constants_of(schema: dict[str, Any]) -> list[Any] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return values if isinstance(values, list) else None


def _json_literal(value: Any) -> str:
    """A GBNF literal of the value's JSON text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    escaped = "".join(
        "\\" + char if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08X}"
        for char in text
    )
    return f'"{escaped}"'
