"""How families of models write a call of a tool: the text around its name and its arguments.

Each form is that of the models' own chat templates; which one a model uses is found out by
``template_traits``, on its template.
"""

import msgspec


class ToolSyntax(msgspec.Struct, frozen=True, kw_only=True):
    """A section is ``opens``, calls, ``closes``. A call is ``each``, the call itself, ``after``.

    ``wrapped``: the call itself is one JSON object with the name and the arguments; otherwise it is
    the name, ``between``, and the arguments as a JSON object. ``listed``: the calls of a section
    are a JSON list. ``several``: a section may hold several calls. ``bare``: an answer that is
    nothing but a wrapped call counts as well. ``tagged``: the arguments are no JSON, but one tag
    for each (Qwen3-Coder). ``hint`` is a text that templates of this family contain. ``silent``:
    texts that belong to the form of an answer, and are neither shown nor a call. ``opens_too`` and
    ``between_too`` are read as well, but not asked for, and so is an id behind ``before_id``.
    """

    name: str
    hint: str
    opens: str
    opens_too: tuple[str, ...] = ()
    closes: str = ""
    each: str = ""
    after: str = ""
    between: str = ""
    between_too: tuple[str, ...] = ()
    before_id: str = ""
    arguments_key: str = "arguments"
    wrapped: bool = True
    listed: bool = False
    several: bool = False
    bare: bool = False
    tagged: bool = False
    silent: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts of which a model may have tokens of their own."""
        every = (self.opens, self.closes, self.each, self.after, self.between, *self.silent)
        return tuple(filter(None, (*every, self.before_id, *self.opens_too, *self.between_too)))


def _deepseek(words: str) -> str:
    """One of DeepSeek's control tokens, which are written with a wide bar and a low block."""
    return f"<\uff5c{words.replace(' ', chr(0x2581))}\uff5c>"


_TOOL_CALLS_BEGIN = _deepseek("tool calls begin")
_TOOL_CALLS_END = _deepseek("tool calls end")
_TOOL_CALL_BEGIN = _deepseek("tool call begin")
_TOOL_CALL_END = _deepseek("tool call end")
_TOOL_SEP = _deepseek("tool sep")

HERMES = ToolSyntax(
    name="hermes", hint="<tool_call>", opens="<tool_call>", closes="</tool_call>", bare=True
)
"""Also what ``conversation.tools_in_words`` asks of models that know no form of their own."""

FAMILIES = (
    ToolSyntax(
        name="deepseek",
        hint=_TOOL_SEP,
        opens=_TOOL_CALLS_BEGIN,
        each=f"{_TOOL_CALL_BEGIN}function{_TOOL_SEP}",
        wrapped=False,
        between="\n```json\n",
        after=f"\n```{_TOOL_CALL_END}",
        closes=_TOOL_CALLS_END,
        several=True,
    ),
    ToolSyntax(
        name="deepseek-3.1",
        hint=_TOOL_SEP,
        opens=_TOOL_CALLS_BEGIN,
        each=_TOOL_CALL_BEGIN,
        wrapped=False,
        between=_TOOL_SEP,
        after=_TOOL_CALL_END,
        closes=_TOOL_CALLS_END,
        several=True,
    ),
    ToolSyntax(
        name="harmony",
        hint="<|channel|>",
        opens="<|channel|>commentary to=functions.",
        wrapped=False,
        between=" <|constrain|>json<|message|>",
        opens_too=(" to=functions.",),
        between_too=(
            "<|constrain|>json<|message|>",
            " json<|message|>",
            "<|message|>",
            "<|channel|>commentary json<|message|>",
            "<|channel|>commentary <|constrain|>json<|message|>",
        ),
        silent=(
            "<|start|>assistant",
            "<|channel|>final<|message|>",
            "<|channel|>commentary<|message|>",
        ),
    ),
    ToolSyntax(
        name="qwen3-coder",
        hint="<function=",
        opens="<tool_call>",
        closes="</tool_call>",
        wrapped=False,
        tagged=True,
    ),
    ToolSyntax(
        name="functionary",
        hint="<function=",
        opens="<function=",
        wrapped=False,
        between=">",
        closes="</function>",
    ),
    ToolSyntax(
        name="mistral-args",
        hint="[ARGS]",
        opens="[TOOL_CALLS]",
        wrapped=False,
        between="[ARGS]",
        before_id="[CALL_ID]",
    ),
    ToolSyntax(name="mistral", hint="[TOOL_CALLS]", opens="[TOOL_CALLS]", listed=True),
    ToolSyntax(
        name="phi", hint="<|tool_call|>", opens="<|tool_call|>", closes="<|/tool_call|>",
        listed=True,
    ),
    ToolSyntax(name="granite", hint="<|tool_call|>", opens="<|tool_call|>", listed=True),
    HERMES,
    ToolSyntax(
        name="llama3",
        hint="parameters",
        opens="<|python_tag|>",
        arguments_key="parameters",
        bare=True,
    ),
)  # fmt: skip


class ReasoningTags(msgspec.Struct, frozen=True):
    """What stands around a model's thoughts."""

    opens: str
    closes: str


REASONING = (
    ReasoningTags("<think>", "</think>"),
    ReasoningTags("<thinking>", "</thinking>"),
    ReasoningTags("<reasoning>", "</reasoning>"),
    ReasoningTags("<seed:think>", "</seed:think>"),
    ReasoningTags("[THINK]", "[/THINK]"),
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningTags("<|channel|>analysis<|message|>", "<|end|>"),
)
