"""Whatever form a provider gives an answer, and however its bytes are cut, the same is heard."""

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.chat import ChatRequest, ChoiceDelta, Message
from plugins.contract import AdapterError, FailureKind, Usage
from plugins.openai_compatible import loose, mending, wire
from plugins.openai_compatible.reading import Reading
from tests.upstreams.quirks import Heard, Quirks, Said, Spent, add_up, events, heard_whole, whole

REQUEST = ChatRequest(model="m", messages=[Message(role="user", content="hi")])
WIRE_REASONS = {
    "stop": ("eos", "eos_token", "stop_sequence", "whatever"),
    "length": ("max_tokens", "model_length"),
    "tool_calls": ("tool_call", "tool_use", ""),
    "content_filter": ("sensitive",),
}
pieces = st.lists(st.text(min_size=1, max_size=6), max_size=4).map(tuple)
arguments = st.dictionaries(st.text(max_size=3), st.integers(0, 99), max_size=2).map(json.dumps)
names = st.sampled_from(["find", "read", "find_all"])
thought_names = st.sampled_from(["reasoning_content", "reasoning", "both"])

id_forms: st.SearchStrategy[Literal["first", "every", "never", "random"]] = st.sampled_from(
    ["first", "every", "never", "random"]
)
name_forms: st.SearchStrategy[Literal["first", "every", "empty"]] = st.sampled_from(
    ["first", "every", "empty"]
)


@st.composite
def said_things(draw: st.DrawFn) -> Said:
    calls = draw(st.lists(st.tuples(names, arguments), max_size=3).map(tuple))
    reason = "tool_calls" if calls else draw(st.sampled_from(["stop", "length", "content_filter"]))
    return Said(text=draw(pieces), thoughts=draw(pieces), calls=calls, reason=reason)


@st.composite
def forms(draw: st.DrawFn) -> Quirks:
    reasons = {
        ours: draw(st.sampled_from((ours, *theirs))) for ours, theirs in WIRE_REASONS.items()
    }
    parts = draw(st.booleans())
    ids = draw(id_forms)
    # Where every piece has an id of its own, a name is all that tells where a call begins.
    repeats = draw(name_forms.filter(lambda form: ids != "random" or form != "every"))
    return Quirks(
        reasoning="parts"
        if parts
        else draw(st.sampled_from(["reasoning_content", "reasoning", "both"])),
        lists=parts,
        index=draw(st.sampled_from(["own", "zero", "none", "text"])),
        ids=ids,
        names=repeats,
        arguments=draw(st.sampled_from(["text", "object"])),
        reasons=reasons,
        reason_twice=draw(st.booleans()) and reasons["tool_calls"] != "",
        usage=draw(st.sampled_from(["last", "with_finish", "groq", "every"])),
        nulls=draw(st.booleans()),
        strays=draw(st.booleans()),
        loose=draw(st.booleans()),
        comments=draw(st.booleans()),
        done=draw(st.sampled_from(["data: [DONE]", "data:[DONE]", "data: [DONE] "])),
        newline=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )


def read(stream: bytes, cuts: list[int], **how: Any) -> tuple[list[ChoiceDelta], Reading]:
    """Everything that is delivered of a stream whose bytes come in pieces of these sizes."""
    reading, deltas = Reading(None, **how), []
    sizes = iter(cuts)
    while stream:
        size = next(sizes, len(stream))
        deltas += reading.take(stream[:size])[0]
        stream = stream[size:]
        if reading.ended or reading.failure is not None:
            return deltas, reading
    deltas += reading.take(None)[0]
    return deltas, reading


@given(st.lists(said_things(), min_size=1, max_size=2), forms(), st.lists(st.integers(1, 80)))
def test_any_stream_is_heard_as_it_was_meant(
    said: list[Said], quirks: Quirks, cuts: list[int]
) -> None:
    spent = Spent(prompt=9, completion=8, cached=2, thought=3)
    stream = "".join(events(said, spent, quirks)).encode()
    deltas, reading = read(stream, cuts)
    assert reading.failure is None
    heard = add_up(deltas)
    assert sorted(heard) == list(range(len(said)))
    for n, each in enumerate(said):
        assert heard[n].means(each), heard[n]
    assert reading.usage(REQUEST) == Usage(
        input_tokens=7, cache_read_tokens=2, output_tokens=5, reasoning_tokens=3
    )


@given(st.lists(said_things(), min_size=1, max_size=2), forms())
def test_any_whole_answer_is_heard_as_it_was_meant(said: list[Said], quirks: Quirks) -> None:
    body = whole(said, Spent(), quirks)
    try:
        reply = wire.reply_decoder.decode(body)
    except ValueError:
        reply = loose.reply_of(body)
    choices = wire.choices_of(reply)
    assert [choice.index for choice in choices] == list(range(len(said)))
    for choice, each in zip(choices, said, strict=True):
        assert heard_whole(choice.message, choice.finish_reason).means(each)
    assert wire.usage_of(reply.usage) == Usage(input_tokens=4, output_tokens=8)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40)))
def test_no_bytes_break_the_reading(noise: bytes, cuts: list[int]) -> None:
    good = "".join(events([Said(text=("a",))], Spent(), Quirks())).encode()
    for stream in (noise, good[:60] + noise, b"data: " + noise + b"\n\n" + good):
        _, reading = read(stream, list(cuts))
        assert reading.ended or reading.failure is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
choice_like = st.fixed_dictionaries(
    {},
    optional={
        "index": json_values,
        "finish_reason": json_values,
        "logprobs": json_values,
        "text": json_values,
        **dict.fromkeys(
            ("delta", "message"),
            st.fixed_dictionaries(
                {},
                optional={
                    name: json_values
                    | st.lists(
                        st.fixed_dictionaries(
                            {},
                            optional={
                                "index": json_values,
                                "id": json_values,
                                "type": json_values,
                                "function": json_values
                                | st.fixed_dictionaries(
                                    {}, optional={"name": json_values, "arguments": json_values}
                                ),
                            },
                        ),
                        max_size=2,
                    )
                    for name in ("role", "content", "reasoning", "tool_calls", "refusal", "audio")
                },
            ),
        ),
    },
)


@given(st.lists(choice_like, max_size=2))
def test_no_types_break_the_reading(choices: list[Any]) -> None:
    body = json.dumps({"choices": choices}).encode()
    _, reading = read(b"data: " + body + b"\n\ndata: [DONE]\n\n", [])
    assert reading.ended or reading.failure is not None
    try:
        wire.choices_of(loose.reply_of(body))
    except AdapterError as error:
        assert error.kind is FailureKind.UPSTREAM


def heard_of(*chunks: dict[str, Any], done: bool = True) -> tuple[dict[int, Heard], Reading]:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    stream = "".join([*lines, "data: [DONE]\n\n" if done else ""])
    deltas, reading = read(stream.encode(), [])
    return add_up(deltas), reading


def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def piece(**fields: Any) -> dict[str, Any]:
    return choice({"tool_calls": [fields]})


def test_a_name_that_comes_after_the_id_is_kept() -> None:
    heard, _ = heard_of(
        piece(index=0, id="a", type="function", function={"arguments": ""}),
        piece(index=0, function={"name": "find", "arguments": "{}"}),
        choice({}, "tool_calls"),
    )
    assert heard[0].calls == [{"id": "a", "name": "find", "arguments": "{}"}]


def test_pieces_of_two_calls_that_alternate_stay_apart() -> None:
    heard, _ = heard_of(
        piece(index=0, id="a", function={"name": "f", "arguments": "{"}),
        piece(index=1, id="b", function={"name": "g", "arguments": "["}),
        piece(index=0, function={"arguments": "}"}),
        piece(index=1, function={"arguments": "]"}),
        choice({}, "tool_calls"),
    )
    assert [call["arguments"] for call in heard[0].calls] == ["{}", "[]"]


def test_other_kinds_of_tools_pass() -> None:
    delta = {"index": 0, "id": "a", "custom": {"name": "grep", "input": "x"}}
    mending.ToolCalls().mend([delta])
    assert delta["type"] == "custom"
    assert delta["custom"] == {"name": "grep", "input": "x"}


def test_what_else_an_answer_has_survives() -> None:
    """Refusals, sound, citations, log probabilities and details of the reasoning."""
    logprobs = {"content": [{"token": "a", "logprob": -0.1}]}
    part = {
        "content": None,
        "refusal": "no",
        "audio": {"id": "x", "data": "AA=="},
        "annotations": [{"type": "url_citation"}],
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "zz"}],
    }
    for index in (0, "0"):
        chunk = {"choices": [{"index": index, "delta": part, "logprobs": logprobs}]}
        deltas, _ = read(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode(), [])
        found = deltas[0]
        assert found.logprobs == logprobs
        for name, value in part.items():
            assert (getattr(found.delta, name) or None) == value


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource", "network_error"])
def test_an_answer_that_was_broken_off_is_a_failure(reason: str) -> None:
    _, reading = heard_of(choice({"content": "half"}), choice({}, reason))
    assert reading.failure is not None
    assert reading.failure.kind is FailureKind.UPSTREAM
    body = json.dumps({"choices": [{"message": {"content": "half"}, "finish_reason": reason}]})
    with pytest.raises(AdapterError):
        wire.choices_of(wire.reply_decoder.decode(body))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow down"}, FailureKind.RATE_LIMITED),
        ({"code": "429", "message": "slow down"}, FailureKind.RATE_LIMITED),
        ({"code": 402, "message": "pay"}, FailureKind.NO_CREDIT),
        ({"code": 503, "message": "busy"}, FailureKind.OVERLOADED),
        ({"code": "context_length_exceeded", "message": "long"}, FailureKind.CONTEXT_LENGTH),
        ({"code": 500, "message": "boom"}, FailureKind.UPSTREAM),
        ({"code": 400, "message": "upstream said no"}, FailureKind.UPSTREAM),
        ({"message": "who knows"}, FailureKind.UPSTREAM),
        ("words only", FailureKind.UPSTREAM),
    ],
)
def test_an_error_within_a_stream(error: Any, kind: FailureKind) -> None:
    for chunk in ({"error": error}, {"error": error, "choices": choice({}, "error")["choices"]}):
        _, reading = heard_of(choice({"content": "half"}), chunk)
        assert reading.failure is not None
        assert reading.failure.kind is kind


def test_a_message_in_place_of_an_answer_is_an_error() -> None:
    _, reading = heard_of({"message": "Too many requests", "type": "x", "code": "y"}, done=False)
    assert reading.failure is not None
    assert "Too many requests" in reading.failure.detail
