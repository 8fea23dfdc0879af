"""A streamed answer put together is the answer, however it was cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.gateway.assemble import Assembler
from plugins.chat import ChoiceDelta, Delta

texts = st.text(max_size=30)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


@given(texts, texts, st.lists(st.integers(0, 100), max_size=6), st.integers(0, 3))
def test_text_and_arguments_survive_any_cut(
    content: str, arguments: str, cuts: list[int], index: int
) -> None:
    assembler = Assembler()
    assembler.add(ChoiceDelta(index=index, delta=Delta(role="assistant")))
    for piece in pieces(content, cuts):
        assembler.add(ChoiceDelta(index=index, delta=Delta(content=piece)))
    first = {"index": 1, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assembler.add(ChoiceDelta(index=index, delta=Delta(tool_calls=[first])))
    for piece in pieces(arguments, cuts):
        part = {"index": 1, "function": {"arguments": piece}}
        assembler.add(ChoiceDelta(index=index, delta=Delta(tool_calls=[part])))
    assembler.add(ChoiceDelta(index=index, delta=Delta(), finish_reason="tool_calls"))
    (choice,) = assembler.choices()
    assert (choice.index, choice.finish_reason) == (index, "tool_calls")
    assert (choice.message.content or "") == content
    function = {"name": "f", "arguments": arguments}
    assert choice.message.tool_calls == [{"id": "c1", "type": "function", "function": function}]


def test_choices_come_by_index_and_parallel_calls_stay_apart() -> None:
    assembler = Assembler()
    for index in (1, 0, 1):
        assembler.add(ChoiceDelta(index=index, delta=Delta(content=str(index))))
    for at in (0, 1, 0):
        part = {"index": at, "function": {"arguments": f"<{at}>"}}
        assembler.add(ChoiceDelta(index=0, delta=Delta(tool_calls=[part])))
    first, second = assembler.choices()
    assert (first.message.content, second.message.content) == ("0", "11")
    assert [call["function"]["arguments"] for call in first.message.tool_calls or ()] == [
        "<0><0>",
        "<1>",
    ]


def test_logprobs_are_joined() -> None:
    assembler = Assembler()
    for token in "ab":
        assembler.add(
            ChoiceDelta(
                index=0, delta=Delta(content=token), logprobs={"content": [{"token": token}]}
            )
        )
    assert assembler.choices()[0].logprobs == {"content": [{"token": "a"}, {"token": "b"}]}
