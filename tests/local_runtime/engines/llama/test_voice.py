"""What becomes of a model's words: they are put into its mouth here, token by token, and the
grammar that holds it is asked what else it could have said."""

from collections.abc import Sequence
from typing import Any

import pytest

from local_runtime.engines.contract import RequestRefused
from local_runtime.engines.llama import tool_grammar
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.manner import Manner
from local_runtime.engines.llama.sampling import Sampler, SamplingSpec
from local_runtime.engines.llama.tool_syntax import FAMILIES, HERMES, REASONING, ToolSyntax
from local_runtime.engines.llama.tools import tool_use_of
from local_runtime.engines.llama.voice import Said, Voice
from tests.local_runtime.calls import chat
from tests.local_runtime.engines.llama.test_tool_calls import ADD, TOOLS, gathered
from tests.local_runtime.engines.llama.test_tools import tool

BY_NAME = {family.name: family for family in FAMILIES}


class Mouth:
    """A voice that says given text; the grammar that holds it can be asked."""

    def __init__(self, engine: LlamaEngine, manner: Manner, stops: Sequence[str] = ()) -> None:
        self._model = engine._model
        self.sampler = Sampler(self._model, SamplingSpec(), [1], index=0, window=64)
        self.voice = Voice(self._model, self.sampler, list(stops), manner)

    def say(self, text: str, *, special: bool = False) -> list[Said]:
        tokens = self._model.tokenize(text, add_special=False, parse_special=special)
        said = []
        for token in tokens:
            grammar = self.sampler._grammar
            if grammar is not None:
                assert grammar.allows(token), (text, self._model.piece(token))
                grammar.accept(token)
            said.append(self.voice.say(token))
        return said

    def allows(self, text: str) -> bool:
        grammar = self.sampler._grammar
        token = self._model.tokenize(text, add_special=False, parse_special=False)[0]
        return grammar is None or grammar.allows(token)

    def thinking(self) -> bool:
        return self.voice.thinking

    def stopped(self) -> bool:
        return self.voice.stopped

    def held(self) -> bool:
        return self.sampler._grammar is not None

    def may_end(self) -> bool:
        grammar = self.sampler._grammar
        return grammar is None or grammar.may_end


def manner(syntax: ToolSyntax = HERMES, **params: Any) -> Manner:
    use = tool_use_of(chat(**{"tools": TOOLS, **params}))
    assert use is not None
    return Manner(
        syntax=syntax,
        functions={function.name: function.parameters for function in use.allowed},
        calls=tool_grammar.grammars_of(use, syntax),
        parallel=use.parallel,
        param="tools",
    )


def told(said: list[Said]) -> tuple[str, str, list[tuple[str, Any]]]:
    text = "".join(item.text for item in said)
    reasoning = "".join(item.reasoning for item in said)
    return text, reasoning, gathered([part for item in said for part in item.tool_calls or ()])


def test_a_call_that_the_model_begins_by_itself(engine: LlamaEngine) -> None:
    mouth = Mouth(engine, manner())
    said = mouth.say("I will look.\n")
    assert not mouth.held()
    said += mouth.say("<tool_call>")
    assert mouth.held()
    assert not mouth.allows("hello")
    said += mouth.say('\n{"name": "get_weather", "arguments": {"city": "Oslo", "unit": "')
    assert mouth.allows("C")
    assert not mouth.allows("K")
    said += mouth.say('C"}}\n</tool_call>')
    assert not mouth.held()
    said += mouth.say('\n<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>')
    said.append(mouth.voice.finish())
    assert told(said) == (
        "I will look.\n",
        "",
        [("get_weather", {"city": "Oslo", "unit": "C"}), ("add", {"a": 1, "b": 2})],
    )
    assert mouth.voice.finish_reason("stop") == "tool_calls"
    assert mouth.voice.finish_reason("length") == "length"
    mouth.voice.close()


def test_one_call_and_no_more(engine: LlamaEngine) -> None:
    mouth = Mouth(engine, manner(parallel_tool_calls=False))
    mouth.say('<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}')
    assert not mouth.may_end()
    mouth.say("</tool_call>")
    assert mouth.may_end()
    assert not mouth.allows("\n")
    assert not mouth.allows("<")
    mouth.voice.close()


@pytest.mark.parametrize("name", ["llama3", "hermes"])
def test_a_bare_call(engine: LlamaEngine, name: str) -> None:
    key = BY_NAME[name].arguments_key
    mouth = Mouth(engine, manner(BY_NAME[name]))
    said = mouth.say('{"name": "add"')
    assert mouth.held()
    assert not mouth.allows("}")
    said += mouth.say(f', "{key}": {{"a": 1, "b": 2}}}}')
    assert mouth.may_end()
    said.append(mouth.voice.finish())
    assert told(said) == ("", "", [("add", {"a": 1, "b": 2})])
    mouth.voice.close()
    other = Mouth(engine, manner(BY_NAME[name]))
    said = other.say('{"name": "Bob", "age": 5}')
    assert not other.held()
    assert told([*said, other.voice.finish()]) == ('{"name": "Bob", "age": 5}', "", [])
    other.voice.close()


def running_on(engine: LlamaEngine) -> int:
    """A token that ends a tag and goes on with something else."""
    pieces = map(engine._model.piece, range(engine._model.vocab_size))
    return next(
        token
        for token, piece in enumerate(pieces)
        if piece[:1] == b">" and len(piece) > 1 and piece[1:2] not in b"{ \t\r\n"
    )


def test_what_the_grammar_comes_too_late_for_is_given_back(engine: LlamaEngine) -> None:
    """A token may hold the end of the mark and something that no call begins with."""
    mouth = Mouth(engine, manner())
    token = running_on(engine)
    said = mouth.say("<tool_call")
    said.append(mouth.voice.say(token))
    said += mouth.say(" is how it is called")
    piece = engine._model.piece(token).decode()
    said.append(mouth.voice.finish())
    assert told(said) == (f"<tool_call{piece} is how it is called", "", [])
    mouth.voice.close()


def test_marks_that_are_control_tokens(engine: LlamaEngine) -> None:
    """As Mistral's and DeepSeek's are: seen where the form has them, and allowed by its grammar."""
    control = sorted(engine._model.control_texts - {"<|im_start|>", "<|im_end|>"})
    usable = [
        text
        for text in control
        if engine._model.tokenize(text, add_special=False, parse_special=True)[0]
        not in engine._model.end_tokens
    ]
    opens, between = usable[:2]
    syntax = ToolSyntax(name="x", hint="", opens=opens, between=between, wrapped=False)
    mouth = Mouth(engine, manner(syntax))
    said = [*mouth.say(f"{opens}add{between}", special=True)]
    said += mouth.say('{"a": 1, "b": 2}')
    said.append(mouth.voice.finish())
    assert told(said) == ("", "", [("add", {"a": 1, "b": 2})])
    mouth.voice.close()


def test_thoughts_then_the_answer_of_a_format(engine: LlamaEngine) -> None:
    grammar = tool_grammar.behind_space('root ::= "yes" | "no"\n')
    mouth = Mouth(engine, Manner(thinking=REASONING[0], grammar=grammar))
    assert mouth.thinking()
    said = mouth.say("Anything goes here.")
    assert not mouth.held()
    said += mouth.say("\n</think>\n\n")
    assert mouth.held()
    assert not mouth.thinking()
    assert not mouth.allows("maybe")
    said += mouth.say("no")
    assert mouth.may_end()
    assert told([*said, mouth.voice.finish()]) == ("no", "Anything goes here.", [])
    mouth.voice.close()


def test_thoughts_that_run_into_the_answer_end_it(engine: LlamaEngine) -> None:
    """The token that ends the thoughts already breaks the format: never passed on as an answer."""
    mouth = Mouth(engine, Manner(thinking=REASONING[0], grammar='root ::= "yes"\n'))
    mouth.say("Hm</think")
    mouth.voice.say(running_on(engine))
    assert mouth.voice._lost
    mouth.voice.close()


def test_stop_strings_are_about_what_is_said(engine: LlamaEngine) -> None:
    how = manner()
    mouth = Mouth(engine, how, ["{", "END"])
    said = mouth.say('So <tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call> EN')
    assert not mouth.stopped()
    assert told(said)[0] == "So  "
    said += mouth.say("D and more")
    assert mouth.stopped()
    text, _, calls = told([*said, mouth.voice.finish()])
    assert (text, calls) == ("So  ", [("add", {"a": 1, "b": 2})])
    mouth.voice.close()


def test_arguments_in_tags(engine: LlamaEngine) -> None:
    mouth = Mouth(engine, manner(BY_NAME["qwen3-coder"], tools=[ADD], tool_choice="required"))
    said = mouth.say("<tool_call>\n<function=")
    assert mouth.held()
    said += mouth.say("add>\n<parameter=a>\n")
    assert not mouth.allows("one")
    said += mouth.say("1\n</parameter>\n")
    assert not mouth.allows("</")
    said += mouth.say("<parameter=b>2</parameter>\n")
    assert not mouth.allows("and")
    said += mouth.say("</function>\n</tool_call>")
    said.append(mouth.voice.finish())
    assert told(said) == ("", "", [("add", {"a": 1, "b": 2})])
    mouth.voice.close()


def test_tags_that_cannot_be_held_to_a_schema(engine: LlamaEngine) -> None:
    values: list[Any] = [{"type": "string", "maxLength": 3}, {"not": {}}, False]
    for value in values:
        loose = tool("f", parameters={"type": "object", "properties": {"a": value}})
        with pytest.raises(RequestRefused, match=r"tools\[0\].function.parameters"):
            manner(BY_NAME["qwen3-coder"], tools=[loose], tool_choice="required")
        assert manner(BY_NAME["qwen3-coder"], tools=[loose]).calls is not None
    held = tool(
        "f", parameters={"type": "object", "properties": {"a": {"enum": ["x", "y"]}}}, strict=True
    )
    mouth = Mouth(engine, manner(BY_NAME["qwen3-coder"], tools=[held]))
    mouth.say("<tool_call><function=f><parameter=a>")
    assert mouth.allows("x")
    assert not mouth.allows("z")
    mouth.voice.close()
