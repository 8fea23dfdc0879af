"""Grammars that hold a model to calls of tools, in the form that it knows.

A function's parameters are held to by the same rules as ``response_format``: see ``grammar``.
Where a call is asked for (``tool_choice`` required or named) or a function is ``strict``, a schema
that cannot be guaranteed is refused. Otherwise such a function's arguments are any JSON object.
"""

import re
from functools import lru_cache
from typing import Any

import msgspec

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.grammar import grammar_of
from local_runtime.engines.llama.tool_syntax import ToolSyntax
from local_runtime.engines.llama.tools import Function, ToolUse

CALLS_MAX = 16  # at once: small models find no end
REMEMBERED_MAX = 32
_RULE = re.compile(r"^([A-Za-z0-9-]+)[ \t]*::=", re.MULTILINE)
# What stands in a rule's body: literals and classes, which are left alone, and names.
_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{[^}]*\}|[A-Za-z][A-Za-z0-9-]*')
_DEFINITIONS = frozenset({"$defs", "definitions"})
_NOTES = frozenset({"title", "description", "default", "examples"})
_PLAIN_OBJECT = _NOTES | _DEFINITIONS | {
    "type", "properties", "required", "additionalProperties", "$schema"
}  # fmt: skip
_GAP = r'gap ::= | " " | "\n" [ \t]{0,16}'
_SPACE = r"[ \t\n]{0,8}"
# Text up to the next tag: what cannot be read as "</parameter>".
_TAGGED_TEXT = r'tagged ::= ([^<] | "<"+ [^/<] | "<"+ "/" [^p<])* "<"*'


class CallGrammars(msgspec.Struct, frozen=True, kw_only=True):
    """GBNF texts. ``whole``: an answer that is calls and nothing else. ``opened``: the rest of a
    section behind the text that opened it.
    """

    whole: str
    opened: str
    rests: dict[str, str]
    rules: str

    def named(self, name: str) -> str:
        """The rest of a bare call behind a function's name, and more where several are allowed."""
        return f"root ::= {self.rests[name]}\n{self.rules}\n"


def grammars_of(use: ToolUse, syntax: ToolSyntax) -> CallGrammars:
    """For the functions that may be called. Raises RequestRefused naming the schema at fault.

    An agent sends the same tools with every turn, and many of them take 20 ms: so it is remembered.
    """
    return _remembered(msgspec.json.encode(use), syntax)


@lru_cache(maxsize=REMEMBERED_MAX)
def _remembered(encoded: bytes, syntax: ToolSyntax) -> CallGrammars:
    use = msgspec.json.decode(encoded, type=ToolUse)
    shared = _rules(grammar_of({"type": "json_object"}) or "")
    rules = {name: body for name, body in shared.items() if name != "root"}
    arguments = []
    for number, function in enumerate(use.allowed):
        forced = use.required and not syntax.tagged
        arguments.append(_arguments(function, f"f{number}-", rules, forced=forced))
    wrapped = {
        function.name: _wrapped_rest(syntax, rule)
        for function, rule in zip(use.allowed, arguments, strict=True)
    }
    names = []
    for number, function in enumerate(use.allowed):
        if syntax.tagged:
            body = _tagged_call(function, f"t{number}-", rules, forced=use.required)
        else:
            body = _call(syntax, function, arguments[number], wrapped[function.name])
        rules[f"call-{number}"] = body
        names.append(f"call-{number}")
    rules["call"] = " | ".join(names)
    if syntax.bare:
        bare = [f"{_literal(_head(name))} {rest}" for name, rest in wrapped.items()]
        rules["bare"] = " | ".join(bare)
    section = _section(syntax, several=use.parallel)
    opens = _literal(syntax.opens)
    tail = _more('gap ";" gap bare', use.parallel)
    if syntax.name == "llama3":  # these models write no text that opens a call
        whole = "bare" + tail
    elif syntax.listed or syntax.several:
        whole = f"{opens} {section}"
    else:
        whole = f"{opens} {section}" + _more(f"gap {opens} {section}", use.parallel)
    lines = [_GAP, *([_TAGGED_TEXT] if syntax.tagged else [])]
    end = "\n".join([*lines, *(f"{name} ::= {body}" for name, body in rules.items())])
    return CallGrammars(
        whole=f"root ::= {whole}\n{end}\n",
        opened=f"root ::= {_SPACE} {section}\n{end}\n",
        rests={name: rest + tail for name, rest in wrapped.items()},
        rules=end,
    )


def either(one: str, other: str) -> str:
    """A grammar for the texts of both."""
    rules = {f"a-{name}": _renamed(body, "a-", None) for name, body in _rules(one).items()}
    rules |= {f"b-{name}": _renamed(body, "b-", None) for name, body in _rules(other).items()}
    lines = ["root ::= a-root | b-root", *(f"{name} ::= {body}" for name, body in rules.items())]
    return "\n".join(lines) + "\n"


def behind_space(grammar: str) -> str:
    """The grammar, with space allowed in front: for what follows a model's thoughts."""
    rules = {f"a-{name}": _renamed(body, "a-", None) for name, body in _rules(grammar).items()}
    lines = [f"root ::= {_SPACE} a-root", *(f"{name} ::= {body}" for name, body in rules.items())]
    return "\n".join(lines) + "\n"


def _arguments(function: Function, prefix: str, rules: dict[str, str], *, forced: bool) -> str:
    """The name of the rule for a function's arguments, after adding what it takes to ``rules``."""
    schema = function.parameters
    if not schema.keys() - {"type", "additionalProperties"} and schema.get(
        "additionalProperties", True
    ) in (True, {}):
        return "object"
    if "type" in schema or not {"$ref", "anyOf", "oneOf", "allOf"} & schema.keys():
        schema = {"type": "object"} | schema
    return _rule_of(schema, function, prefix, rules, forced=forced) or "object"


def _rule_of(
    schema: Any, function: Function, prefix: str, rules: dict[str, str], *, forced: bool
) -> str | None:
    """The name of the rule for JSON of a schema. None: it cannot be guaranteed, and need not be."""
    try:
        own = _rules(grammar_of({"type": "json_schema", "json_schema": {"schema": schema}}) or "")
    except RequestRefused as refused:
        if not (forced or function.strict):
            return None
        raise _unsure(function, refused.message.removeprefix("response_format: ")) from None
    same = {name for name, body in own.items() if name != "root" and rules.get(name) == body}
    for name, body in own.items():
        if name not in same:
            rules[prefix + name] = _renamed(body, prefix, same)
    return prefix + "root"


def _unsure(function: Function, reason: str) -> RequestRefused:
    """A schema cannot be guaranteed where it has to be."""
    param = function.where.partition("[")[0]
    return RequestRefused(f"{function.where}.parameters: {reason}", param=param)


def _call(syntax: ToolSyntax, function: Function, arguments: str, rest: str) -> str:
    """The body of the rule for one call within a section."""
    if syntax.wrapped:
        body = f"{_literal(_head(function.name))} {rest}"
    else:
        body = f"{_literal(function.name + syntax.between)} {arguments}"
    return f"{body} {_literal(syntax.after)}" if syntax.after else body


def _tagged_call(function: Function, prefix: str, rules: dict[str, str], *, forced: bool) -> str:
    """The body of the rule for a call with a tag for each argument, in the schema's order."""
    schema = function.parameters
    properties, required = schema.get("properties", {}), schema.get("required", [])
    known = isinstance(properties, dict) and isinstance(required, list)
    if not known or schema.keys() - _PLAIN_OBJECT or {*required} - properties.keys():
        if forced or function.strict:
            raise _unsure(function, "this model takes plain properties only.")
        properties = properties if isinstance(properties, dict) else {}
        required = []
    parts = [f"{_literal(f'<function={function.name}>')} {_SPACE}"]
    for number, (key, value) in enumerate(properties.items()):
        text = _tagged_value(function, value, f"{prefix}{number}-", rules, forced=forced)
        body = f'{_literal(f"<parameter={key}>")} {text} "</parameter>" {_SPACE}'
        parts.append(body if key in required else f"({body})?")
    return " ".join([*parts, '"</function>"'])


def _tagged_value(
    function: Function, schema: Any, prefix: str, rules: dict[str, str], *, forced: bool
) -> str:
    """What may stand in a tag: any text for a string, one of an enum's texts, and else JSON."""
    if schema is True:
        return "tagged"
    if not isinstance(schema, dict):
        if forced or function.strict:
            raise _unsure(function, "a property's schema must be an object.")
        return "tagged"
    keywords = schema.keys() - _NOTES
    if not keywords or (keywords == {"type"} and schema["type"] == "string"):
        return "tagged"
    if keywords in ({"type", "enum"}, {"enum"}) and schema.get("type", "string") == "string":
        texts = schema["enum"]
        if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
            return f'"\\n"? ({" | ".join(map(_literal, texts))}) "\\n"?'
    if "type" in keywords and schema["type"] == "string":
        if forced or function.strict:
            raise _unsure(function, "this model's strings cannot be held to more than an enum.")
        return "tagged"
    whole = {key: function.parameters[key] for key in _DEFINITIONS & function.parameters.keys()}
    rule = _rule_of(schema | whole, function, prefix, rules, forced=forced)
    return f'"\\n"? {rule} "\\n"?' if rule else "tagged"


def _section(syntax: ToolSyntax, *, several: bool) -> str:
    """The rest of a section, from behind the text that opens it."""
    closes = f" gap {_literal(syntax.closes)}" if syntax.closes else ""
    if syntax.listed:
        more = _more('gap "," gap call', several)
        return f'gap "[" gap call{more} gap "]"{closes}'
    if syntax.several:
        each = _literal(syntax.each)
        more = _more(f"gap {each} call", several)
        return f"gap {each} call{more}{closes}"
    return f"gap call{closes}" if syntax.wrapped or syntax.tagged else f"call{closes}"


def _more(body: str, several: bool) -> str:
    return f" ({body}){{0,{CALLS_MAX - 1}}}" if several else ""


def _head(name: str) -> str:
    return f'{{"name": "{name}"'


def _wrapped_rest(syntax: ToolSyntax, arguments: str) -> str:
    """What follows the name in a call that is one JSON object."""
    key = _literal(f'"{syntax.arguments_key}"')
    return f'gap "," gap {key} gap ":" gap {arguments} gap "}}"'


def _rules(grammar: str) -> dict[str, str]:
    """The rules of a GBNF text, by name."""
    parts = _RULE.split(grammar)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _renamed(body: str, prefix: str, kept: set[str] | None) -> str:
    """A rule's body with the names of rules changed, those in ``kept`` aside."""

    def renamed(match: re.Match[str]) -> str:
        word = match[0]
        if word[0] in '"[{' or (kept is not None and word in kept):
            return word
        return prefix + word

    return _WORD.sub(renamed, body)


def _literal(text: str) -> str:
    """A GBNF literal."""
    escaped = "".join(
        "\\" + char if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08X}"
        for char in text
    )
    return f'"{escaped}"'
