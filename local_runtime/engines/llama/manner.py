"""How one answer is to be read, and what grammar holds it where: thoughts, calls, and the rest."""

from typing import Any

import msgspec

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama.grammar import grammar_of
from local_runtime.engines.llama.reply_reader import ReplyReader
from local_runtime.engines.llama.template_traits import Speech
from local_runtime.engines.llama.thinking import hides_reasoning
from local_runtime.engines.llama.tool_grammar import (
    CallGrammars,
    behind_space,
    either,
    grammars_of,
)
from local_runtime.engines.llama.tool_syntax import ReasoningTags, ToolSyntax
from local_runtime.engines.llama.tools import ToolUse
from plugins.chat import ChatRequest


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """``grammar`` holds the answer from its start, or from the end of the thoughts that the prompt
    has opened (``thinking``). ``calls`` are the grammars for calls that the model begins by itself.
    ``param`` is what to name when a grammar is refused.
    """

    grammar: str | None = None
    param: str = "response_format"
    reasoning: tuple[ReasoningTags, ...] = ()
    thinking: ReasoningTags | None = None
    hides_reasoning: bool = False
    syntax: ToolSyntax | None = None
    functions: dict[str, dict[str, Any]] = {}
    calls: CallGrammars | None = None
    forced: bool = False
    only_calls: bool = False
    parallel: bool = True

    def under(self, grammar: str | None) -> "Manner":
        """The same, held to by the request's own ``grammar`` where there is one."""
        if grammar == self.grammar:
            return self
        reasoning = self.reasoning if self.thinking else ()
        return msgspec.structs.replace(self, grammar=grammar, param="grammar", reasoning=reasoning)

    @property
    def plain(self) -> bool:
        """Whether all that is written is what is said."""
        return not (self.reasoning or self.thinking or self.syntax)

    def reader(self) -> ReplyReader:
        """A reader for one answer."""
        return ReplyReader(
            reasoning=self.reasoning,
            thinking=self.thinking,
            syntax=self.syntax,
            functions=self.functions,
            # A JSON answer that the grammar allows as well may look like a bare call for a while.
            trusted=self.only_calls
            or (self.forced and self.syntax is not None and not self.syntax.bare),
            only_calls=self.only_calls,
        )


def manner_of(request: ChatRequest, use: ToolUse | None, speech: Speech, prompt_end: str) -> Manner:
    """Raises RequestRefused for what cannot be guaranteed."""
    answer = grammar_of(request.response_format)
    written = request.grammar if isinstance(request.grammar, str) else None
    held = answer is not None or written is not None
    thinking = None
    for tags in speech.reasoning:
        if prompt_end.rstrip().endswith(tags.opens):
            thinking = tags
    manner = Manner(
        grammar=answer,
        # An answer under a grammar has no room for thoughts, unless the prompt has begun them.
        reasoning=() if held and not thinking else speech.reasoning,
        thinking=thinking,
        hides_reasoning=hides_reasoning(request),
    )
    if use is not None:
        manner = _with_calls(manner, use, speech.syntax, written)
    if thinking and manner.grammar is not None:
        manner = msgspec.structs.replace(manner, grammar=behind_space(manner.grammar))
    return manner


def _with_calls(manner: Manner, use: ToolUse, syntax: ToolSyntax, written: str | None) -> Manner:
    if written is not None:
        raise RequestRefused(
            "grammar cannot be combined with tools, which are held to by a grammar themselves.",
            param="grammar",
        )
    calls = grammars_of(use, syntax)
    grammar = calls.whole if use.required else None
    if not use.required and manner.grammar is not None:
        grammar = either(manner.grammar, calls.whole)
    return msgspec.structs.replace(
        manner,
        grammar=grammar,
        param=use.param,
        syntax=syntax,
        functions={function.name: function.parameters for function in use.allowed},
        calls=calls,
        forced=grammar is not None,
        only_calls=use.required,
        reasoning=() if grammar is not None and not manner.thinking else manner.reasoning,
        parallel=use.parallel,
    )
