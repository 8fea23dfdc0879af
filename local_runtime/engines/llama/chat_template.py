"""The model's own chat template, rendered where it can do no harm.

A template is a program that came with the weights. It runs in jinja's immutable sandbox, and on top
of that with limits on its time, its output and the strings it builds. Semantics follow Hugging
Face transformers, ``utils/chat_template_utils.py``, since that is what templates are written for.
"""

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from local_runtime.engines.contract import EngineLoadError, RequestRefused
from local_runtime.store.gguf import GgufError, GgufHeader, read_header

RENDER_SECONDS_MAX = 2.0
TEMPLATE_CHARACTERS_MAX = 256 * 1024
# Room for a prompt far longer than any context, yet a bound: characters beside the messages' own.
OUTPUT_CHARACTERS_MAX = 32 * 1024 * 1024
NUMBER_MAX = 1_000_000

_RESERVED = frozenset(
    {"messages", "tools", "documents", "bos_token", "eos_token", "add_generation_prompt"}
)


def header_and_template(path: str) -> tuple[GgufHeader, str]:
    """A file's header and the template in it. Raises EngineLoadError."""
    try:
        header = read_header(Path(path))
    except (GgufError, OSError) as error:
        raise EngineLoadError(str(error)) from error
    if header.chat_template is None:
        raise EngineLoadError("the model has no chat template, so it cannot hold conversations")
    return header, header.chat_template


class TemplateLimit(Exception):
    """The template ran for too long, or made too much text."""


class _Raised(Exception):
    """The template itself refused the conversation, with ``raise_exception``."""


class _GenerationTag(jinja2.ext.Extension):
    """``{% generation %}``: marks what training counts as output; says nothing at inference."""

    tags = {"generation"}  # noqa: RUF012  # declared so by jinja2

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with a clock that every loop looks at and operators that cannot explode."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        self.deadline_s = 0.0
        self.filters["tojson"] = _tojson
        self.globals.update(
            raise_exception=_raise,
            strftime_now=lambda form: datetime.now().astimezone().strftime(form),
            _tick=self._tick,
            _concat=self._concat,
        )

    def compile_limited(self, source: str) -> tuple[jinja2.Template, frozenset[str]]:
        """Compile, with a look at the clock in every loop and macro, and bounded ``~``.

        With the template come the names of the variables that it reads.
        """
        tree = self.parse(source)
        reads = frozenset(jinja2.meta.find_undeclared_variables(tree))
        bodies = [node.body for node in tree.find_all(jinja2.nodes.For)]
        bodies += [node.body for node in tree.find_all(jinja2.nodes.Macro)]
        for body in bodies:
            body.insert(0, jinja2.nodes.ExprStmt(_call("_tick", [])))
        _replace_concats(tree)
        tree.set_lineno(1, override=False)
        return self.from_string(tree), reads

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        self._tick()
        if operator == "**" or (operator == "*" and _size(left) * _size(right) > NUMBER_MAX):
            raise TemplateLimit("it multiplies too much")
        if operator == "%" and isinstance(left, str):
            raise TemplateLimit("it formats text with %")
        return _bounded(super().call_binop(context, operator, left, right))

    def _tick(self) -> str:
        if time.monotonic() > self.deadline_s:
            raise TemplateLimit(f"it ran for more than {RENDER_SECONDS_MAX} s")
        return ""

    def _concat(self, *parts: Any) -> Any:
        self._tick()
        return _bounded("".join(str(part) for part in parts))


class ChatTemplate:
    """One model's template. ``reads`` are the names of the variables that it looks at.

    Rendering is for one thread at a time.
    """

    def __init__(self, source: str, *, bos_token: str, eos_token: str) -> None:
        """Compile it. Raises EngineLoadError when it cannot be."""
        if len(source) > TEMPLATE_CHARACTERS_MAX:
            raise EngineLoadError("the model's chat template is too long")
        self.source = source
        self._environment = _Environment()
        try:
            self._template, self.reads = self._environment.compile_limited(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise EngineLoadError(f"the model's chat template does not compile: {error}") from error
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: dict[str, Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt. ``variables`` are a client's own: see ``check_variables``.

        Raises RequestRefused for a conversation that the template cannot express.
        """
        given = (variables or {}) | self._tokens
        given |= {"messages": messages, "tools": tools, "documents": None}
        given["add_generation_prompt"] = add_generation_prompt
        self._environment.deadline_s = time.monotonic() + RENDER_SECONDS_MAX
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(given):
                self._environment._tick()
                size += len(part)
                if size > OUTPUT_CHARACTERS_MAX:
                    raise TemplateLimit("it made too much text")
                parts.append(part)
            prompt = "".join(parts)
            prompt.encode()  # half a surrogate pair is no text
        except _Raised as error:
            raise RequestRefused(
                f"The model's chat template refuses this conversation: {error}", param="messages"
            ) from error
        except (
            jinja2.TemplateError, TemplateLimit, TypeError, ValueError, KeyError, IndexError,
            AttributeError, ArithmeticError, RecursionError, MemoryError,
        ) as error:  # fmt: skip
            raise RequestRefused(
                f"The model's chat template cannot render this conversation: {error}",
                param="messages",
            ) from error
        return prompt


def check_variables(given: Any) -> dict[str, Any]:
    """``chat_template_kwargs``, which may not replace what is ours. Raises RequestRefused."""
    variables: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    for name in variables:
        if name in _RESERVED or not name.isidentifier() or name.startswith("_"):
            raise RequestRefused(
                f"chat_template_kwargs may not set {name!r}.", param="chat_template_kwargs"
            )
    return variables


def _call(name: str, arguments: Sequence[jinja2.nodes.Expr]) -> jinja2.nodes.Call:
    function = jinja2.nodes.Name(name, "load")
    return jinja2.nodes.Call(function, list(arguments), [], None, None)


def _replace_concats(node: jinja2.nodes.Node) -> None:
    """Turn every ``a ~ b`` into a call that bounds the result."""
    for field, value in list(node.iter_fields()):
        if isinstance(value, jinja2.nodes.Node):
            _replace_concats(value)
            setattr(node, field, _without_concat(value))
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, jinja2.nodes.Node):
                    _replace_concats(item)
            value[:] = [_without_concat(item) for item in value]


def _without_concat(value: Any) -> Any:
    return _call("_concat", value.nodes) if isinstance(value, jinja2.nodes.Concat) else value


def _size(value: Any) -> float:
    """How much a factor contributes to a product: a number itself, a text by its length."""
    return abs(value) if isinstance(value, (int, float)) else len(value)


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, list, tuple)) and len(value) > OUTPUT_CHARACTERS_MAX:
        raise TemplateLimit("it made too much text")
    return value


def _raise(message: str) -> NoReturn:
    raise _Raised(str(message)[:500])


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers does it: jinja's own filter escapes HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
