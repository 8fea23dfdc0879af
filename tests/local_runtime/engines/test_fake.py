"""The fake engine says and bills the same, always."""

from typing import Any

import pytest

from local_runtime.engines.contract import EngineEvent, EngineSpec, Failed, Finished
from local_runtime.engines.fake import FakeEngine, parse_options, tokens_of
from tests.local_runtime.calls import engine_request, reason_of, text_of


def run(options: str = "", text: str = "one two three", **params: Any) -> list[EngineEvent]:
    engine = FakeEngine()
    spec = EngineSpec(engine="fake", options=parse_options(options), sequences_max=2)
    engine.load(spec, lambda _fraction: None)
    engine.submit(engine_request(text, **params))
    events: list[EngineEvent] = []
    while engine.has_work:
        events += engine.step()
    assert engine.busy_ns == events[-1].usage.compute_ns
    return events


def test_tokens_are_words_with_their_space() -> None:
    text = "  a  bc\n d "
    assert tokens_of(text) == ["  a", "  bc", "\n d", " "]
    assert "".join(tokens_of(text)) == text


def test_it_repeats_itself() -> None:
    assert run()[-1].usage == run()[-1].usage
    assert text_of(run("repeat=2", "a b")) == "echo: a b a b"


@pytest.mark.parametrize(
    ("params", "text", "reason"),
    [
        ({"max_tokens": 2}, "echo: one", "length"),
        ({"stop": "e t"}, "echo: on", "stop"),
        ({"stop": ["two", "one"]}, "echo: ", "stop"),
        ({}, "echo: one two three", "stop"),
    ],
)
def test_where_it_ends(params: dict[str, Any], text: str, reason: str) -> None:
    events = run(**params)
    assert text_of(events) == text
    assert reason_of(events) == reason
    assert isinstance(events[-1], Finished)


def test_it_bills_by_the_token() -> None:
    usage = run("compute_ns_per_token=7", max_tokens=2)[-1].usage
    assert (usage.input_tokens, usage.output_tokens, usage.compute_ns) == (3, 2, 35)


def test_more_answers_than_places() -> None:
    (failed,) = run(n=3)
    assert isinstance(failed, Failed)
    assert failed.param == "n"


@pytest.mark.parametrize("options", ["x=1", "repeat", "repeat=-1", "load_seconds=0", "repeat=x"])
def test_options_that_make_no_sense(options: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_options(options)
    assert str(caught.value)
