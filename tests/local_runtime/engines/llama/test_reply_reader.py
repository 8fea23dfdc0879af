"""Answers taken apart: the same however the text is cut, nothing lost, calls in every family."""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_runtime.engines.contract import ToolCallPiece
from local_runtime.engines.llama.reply_reader import Kind, ReplyReader, Segment
from local_runtime.engines.llama.tool_syntax import FAMILIES, HERMES, REASONING, ToolSyntax

BY_NAME = {family.name: family for family in FAMILIES}
FUNCTIONS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
    "f": {"type": "object"},
}
Read = tuple[str, str, list[tuple[str, Any]]]


def write(syntax: ToolSyntax, calls: list[tuple[str, dict[str, Any]]]) -> str:
    """Calls as a model of that family writes them."""

    def one(name: str, arguments: dict[str, Any]) -> str:
        if syntax.tagged:
            tags = "".join(
                f"<parameter={key}>\n{value if isinstance(value, str) else json.dumps(value)}\n"
                "</parameter>\n"
                for key, value in arguments.items()
            )
            return f"\n<function={name}>\n{tags}</function>\n"
        if not syntax.wrapped:
            return f"{name}{syntax.between}{json.dumps(arguments)}{syntax.after}"
        return json.dumps({"name": name, syntax.arguments_key: arguments})

    said = [one(*call) for call in calls]
    if syntax.name == "llama3":
        return "; ".join(said)
    if syntax.listed:
        return f"{syntax.opens}[{', '.join(said)}]{syntax.closes}"
    if syntax.several:
        return syntax.opens + "\n".join(syntax.each + call for call in said) + syntax.closes
    return "\n".join(syntax.opens + call + syntax.closes for call in said)


def gather(segments: list[Segment]) -> Read:
    texts = dict.fromkeys(Kind, "")
    parts: list[ToolCallPiece] = []
    for segment in segments:
        texts[segment.kind] += segment.text
        parts += segment.calls
    calls: list[tuple[str, Any]] = []
    for part in parts:
        if part.id:
            assert re.fullmatch("call_[0-9a-f]{24}", part.id)
            assert part.index == len(calls)
            assert part.name
            calls.append((part.name, part.arguments))
        else:
            assert part.index == len(calls) - 1
            assert not part.name
            calls[-1] = (calls[-1][0], calls[-1][1] + part.arguments)
    return texts[Kind.CONTENT], texts[Kind.REASONING], calls


def read(
    text: str,
    syntax: ToolSyntax | None = HERMES,
    *,
    cuts: tuple[int, ...] = (),
    functions: Mapping[str, dict[str, Any]] = FUNCTIONS,
    **how: Any,
) -> Read:
    reader = ReplyReader(syntax=syntax, functions=functions, reasoning=REASONING, **how)
    places = sorted(cut % (len(text) + 1) for cut in cuts)
    segments: list[Segment] = []
    for begin, end in zip([0, *places], [*places, len(text)], strict=True):
        segments += reader.push(text[begin:end])
    segments += reader.finish()
    assert "".join(segment.text for segment in segments) == text  # nothing is lost
    return gather(segments)


def decoded(found: Read) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments in found[2]]


CUTS = st.lists(st.integers(0, 2000), max_size=40).map(tuple)
WORDS = st.text(st.sampled_from('ab<>{}[]"\\\n é🌱|_;,:'), max_size=12)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["city", "days", "x y", 'q"']),
    st.recursive(
        WORDS | st.integers(-9, 99) | st.booleans() | st.none() | st.just(1.5e-7),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)
CALLS = st.lists(st.tuples(st.sampled_from(["get_weather", "f"]), ARGUMENTS), max_size=3)


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "qwen3-coder"])
@settings(max_examples=60)
@given(calls=CALLS, cuts=CUTS, trusted=st.booleans())
def test_calls_of_every_family(
    name: str, calls: list[tuple[str, dict[str, Any]]], cuts: tuple[int, ...], trusted: bool
) -> None:
    syntax = BY_NAME[name]
    text = write(syntax, calls) if calls else ""
    found = read(text, syntax, cuts=cuts, trusted=trusted)
    assert decoded(found) == calls
    assert found[:2] == ("", "")


@settings(max_examples=60)
@given(
    calls=st.lists(
        st.fixed_dictionaries({"city": st.text("ab<é\n ", max_size=9), "days": st.integers()}),
        min_size=1,
        max_size=3,
    ),
    cuts=CUTS,
)
def test_arguments_in_tags(calls: list[dict[str, Any]], cuts: tuple[int, ...]) -> None:
    named = [("get_weather", arguments) for arguments in calls]
    found = read(write(BY_NAME["qwen3-coder"], named), BY_NAME["qwen3-coder"], cuts=cuts)
    assert decoded(found) == named


PIECES = st.lists(
    st.one_of(
        WORDS,
        st.sampled_from(
            [marker for family in FAMILIES for marker in family.markers]
            + [tag for tags in REASONING for tag in (tags.opens, tags.closes)]
            + ['{"name": "f"', ', "arguments": {', '"parameters": {}}', "}", "}}", "f", "[ARGS]{}"]
            + ['{"name": "f", "arguments": {}}', '{"a": 1}', "<function=f>", "</function>"]
        ),
    ),
    max_size=14,
).map("".join)


@pytest.mark.parametrize("name", BY_NAME)
@settings(max_examples=150)
@given(text=PIECES, cuts=CUTS)
def test_the_cuts_make_no_difference(name: str, text: str, cuts: tuple[int, ...]) -> None:
    syntax = BY_NAME[name]
    whole = read(text, syntax)
    assert read(text, syntax, cuts=cuts) == whole
    assert read(text, syntax, cuts=tuple(range(len(text)))) == whole
    for _name, arguments in whole[2]:  # whatever came in, what is given out as a call is one
        assert isinstance(msgspec.json.decode(arguments), dict)


@given(st.text(), CUTS)
def test_plain_text_is_content(text: str, cuts: tuple[int, ...]) -> None:
    assert read(text, None, cuts=cuts)[0] == text or "<" in text or "[" in text


CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def test_text_around_calls() -> None:
    content, _, calls = read(f"I look.\n{CALL}\n{CALL}\nSo.")
    assert content == "I look.\n\nSo."
    assert [name for name, _ in calls] == ["get_weather"] * 2


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "no_such", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": }}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": 1',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        "The tag <tool_call> opens a call, and </tool_call> closes it.",
        "<tool_c",
        '{"name": "Bob", "age": 5}',
        '{"name": "f"}',
        '{"answer": {"name": "f", "arguments": {}}}',
        '{"name": "f", "arguments": {}',
        '{"name": "f", "arguments": ' + "[" * 300 + "]" * 300 + "}",
    ],
)
def test_what_is_no_call_is_content(text: str) -> None:
    assert read(text) == (text, "", [])
    assert read(text, cuts=tuple(range(len(text)))) == (text, "", [])


def test_a_call_behind_something_that_is_none() -> None:
    content, _, calls = read(f"<tool_call>{{oops}}{CALL}")
    assert content == "<tool_call>{oops}"
    assert calls == [("get_weather", '{"city": "Oslo"}')]


def test_forms_that_models_mix_up() -> None:
    for text in (
        '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>',
        '<tool_call>{"name": "f", "parameters": {"a": 1}}',
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        '<tool_call>{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}',
        '{"name": "f", "arguments": {"a": 1}}',
        ' {"type": "function", "name": "f", "parameters": {"a": 1}}',
    ):
        assert decoded(read(text)) == [("f", {"a": 1})], text
    assert decoded(read('<tool_call>{"name": "f"}</tool_call>')) == [("f", {})]
    text = '<|python_tag|>{"name": "f", "parameters": {}}'
    assert decoded(read(text, BY_NAME["llama3"])) == [("f", {})]
    text = "[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{}"
    assert decoded(read(text, BY_NAME["mistral-args"])) == [("f", {})]


def test_arguments_come_as_they_are_written_where_a_grammar_holds() -> None:
    reader = ReplyReader(syntax=HERMES, functions=FUNCTIONS, trusted=True)
    came = []
    for character in CALL:
        for segment in reader.push(character):
            came += [(call.name, call.arguments) for call in segment.calls]
    assert came[0] == ("get_weather", "{")
    assert [arguments for _, arguments in came[1:4]] == ['"', "c", "i"]
    assert "".join(arguments for _, arguments in came) == '{"city": "Oslo"}'
    broken_off = ReplyReader(syntax=HERMES, functions=FUNCTIONS, trusted=True)
    segments = [*broken_off.push(CALL[: CALL.index("slo")]), *broken_off.finish()]
    content, _, calls = gather(segments)
    assert content == ""
    assert calls == [("get_weather", '{"city": "O')]


def test_thoughts() -> None:
    assert read("<think>\nHm.\n</think>\n\nYes.") == ("Yes.", "Hm.", [])
    assert read(f"<think>a</think>\n{CALL}")[1:] == ("a", [("get_weather", '{"city": "Oslo"}')])
    assert read("<think></think>Yes.") == ("Yes.", "", [])
    assert read("<think>never ends </thin")[1] == "never ends </thin"
    assert read("[THINK]a[/THINK]b", None) == ("b", "a", [])
    # Only at the beginning: later on it is what the model says.
    assert read("A <think>b</think>") == ("A <think>b</think>", "", [])
    tags = REASONING[0]
    assert read("Hm.\n</think>\n\nYes.", None, thinking=tags) == ("Yes.", "Hm.", [])


def test_harmony() -> None:
    text = (
        "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary"
        "<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
        '<|constrain|>json<|message|>{"a": 1}'
    ).replace("I look.<|end|>", "I look.")
    assert read(text, BY_NAME["harmony"]) == ("I look.", "Let me see.", [("f", '{"a": 1}')])
    final = (
        "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Yes"
    )
    assert read(final, BY_NAME["harmony"]) == ("Yes", "Hm", [])


def test_a_long_answer_is_read_in_time_that_grows_with_its_length() -> None:
    text = "<tool_call>" * 3000 + "{" * 20_000
    assert read(text) == (text, "", [])
