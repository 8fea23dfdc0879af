"""Speculation changes how many steps an answer takes, and never what it says or what it costs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local_runtime.engines.contract import (
    EngineEvent,
    EngineLoadError,
    EngineRequest,
    EngineSpec,
    Finished,
)
from local_runtime.engines.llama.draft_model import DraftModel
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.sizing import size_of
from local_runtime.engines.llama.speculation import Speculation, StepCosts
from local_runtime.store.gguf import read_header
from tests.local_runtime.calls import chat, reason_of, smollm_path, text_of
from tests.local_runtime.engines.llama.driving import CONTEXT_LENGTH, SEQUENCES_MAX

TEXT = "Pack my box with five dozen liquor jugs. How vexingly quick daft zebras jump! " * 2
REPEAT = f"Repeat this text exactly, word for word:\n\n{TEXT}"


class Free(StepCosts):
    """As on hardware where a few tokens more cost nothing: whatever can be guessed is."""

    def of(self, tokens: int) -> float:
        return 1.0


class Quick(DraftModel):
    """As if its guesses took no time."""

    @property
    def token_ns(self) -> float:
        return 0.0


@pytest.fixture
def eager(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaEngine]:
    # How a prompt is portioned shows in the last bits, and portions follow the clock.
    monkeypatch.setattr("local_runtime.engines.llama.scheduler.CHUNK_NS_ALONE", 10**15)
    before = engine._speculation
    engine._speculation = Speculation(engine._forecast)
    engine._speculation.costs = Free(engine._forecast)
    yield engine
    engine._speculation = before


def answers(engine: LlamaEngine, requests: list[EngineRequest]) -> tuple[int, list[Any]]:
    """Steps, and events by request; from an empty cache."""
    engine._prefixes.clear()
    events: dict[str, list[EngineEvent]] = {each.request_id: [] for each in requests}
    for each in requests:
        engine.submit(each)
    for work in engine._waiting:
        work.seeded = False  # for whom nothing is guessed
    steps = 0
    while engine.has_work:
        steps += 1
        for event in engine.step():
            events[event.request_id].append(event)
    engine._prefixes.clear()
    assert engine._cells.used == 0
    return steps, list(events.values())


def both_ways(engine: LlamaEngine, text: str, **params: Any) -> list[tuple[int, Any]]:
    results = []
    speculation = engine._speculation
    for way in (speculation, None):
        engine._speculation = way
        request = EngineRequest(request_id="one", chat=chat(text, **params), cache_scope=None)
        steps, events = answers(engine, [request])
        results.append((steps, events[0]))
    engine._speculation = speculation
    return results


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0},
        {"temperature": 0.8, "seed": 3},
        {"temperature": 0, "repetition_penalty": 1.3, "frequency_penalty": 0.5},
        {"temperature": 0, "logprobs": True, "top_logprobs": 2},
        {"temperature": 0, "stop": ["dozen liquor", "zebras"]},
        {"temperature": 1, "seed": 9},
        {"temperature": 1, "seed": 2, "mirostat": 2},
    ],
)
def test_the_same_text_with_and_without(eager: LlamaEngine, params: dict[str, Any]) -> None:
    (_, with_guesses), (_, without) = both_ways(eager, REPEAT, max_tokens=40, **params)
    assert text_of(with_guesses) == text_of(without)
    assert reason_of(with_guesses) == reason_of(without)
    last, plain = with_guesses[-1], without[-1]
    assert isinstance(last, Finished)
    assert last.usage.output_tokens == plain.usage.output_tokens
    assert last.usage.input_tokens == plain.usage.input_tokens


def test_repetition_takes_fewer_steps(eager: LlamaEngine) -> None:
    (fewer, _), (all_of_them, _) = both_ways(eager, REPEAT, max_tokens=60, temperature=0)
    assert fewer < 0.6 * all_of_them


def test_a_grammar_holds_guesses_too(eager: LlamaEngine) -> None:
    schema = {"type": "array", "items": {"enum": ["alpha", "beta"]}, "minItems": 9, "maxItems": 9}
    asked = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    ways = both_ways(eager, "alpha", response_format=asked, temperature=0, max_tokens=80)
    texts = [text_of(events) for _, events in ways]
    assert texts[0] == texts[1]
    assert len(json.loads(texts[0])) == 9
    assert ways[0][0] < ways[1][0]


def test_the_bill_adds_up(eager: LlamaEngine) -> None:
    before_ns = eager.busy_ns - eager.unbilled_ns
    requests = [
        EngineRequest(
            request_id=str(n),
            chat=chat(REPEAT, max_tokens=20, temperature=0.5, seed=n),
            compute_ns_max=600_000_000 if n == 1 else None,
        )
        for n in range(3)
    ]
    _, events = answers(eager, requests)
    billed_ns = sum(each[-1].usage.compute_ns for each in events)
    assert billed_ns == eager.busy_ns - eager.unbilled_ns - before_ns
    assert events[1][-1].usage.compute_ns <= 600_000_000


def test_a_full_context_leaves_no_room_for_guesses(eager: LlamaEngine) -> None:
    """Guesses take cells only where nobody needs them."""
    words = "one two three four " * ((CONTEXT_LENGTH - 60) // 4)
    requests = [
        EngineRequest(request_id=str(n), chat=chat(words, ignore_eos=True, temperature=0))
        for n in range(2)
    ]
    _, events = answers(eager, requests)
    assert [reason_of(each) for each in events] == ["length", "length"]


@pytest.fixture
def drafting(engine: LlamaEngine) -> Iterator[LlamaEngine]:
    """The same model guesses for itself: most of its guesses are right."""
    size = size_of(
        read_header(smollm_path()),
        EngineSpec(engine="llama", context_length=CONTEXT_LENGTH, threads=1),
    )
    before = engine._speculation
    model = Quick(str(smollm_path()), engine._model, size, SEQUENCES_MAX)
    engine._speculation = Speculation(engine._forecast, model)
    engine._speculation.costs = Free(engine._forecast)
    yield engine
    assert len(model._free) + len(model._slots) == SEQUENCES_MAX
    engine._speculation.close()
    engine._speculation = before


def test_a_draft_model_saves_steps_and_changes_nothing(drafting: LlamaEngine) -> None:
    ask = "Why is the sky blue?"
    (fewer, guessed), (steps, plain) = both_ways(drafting, ask, max_tokens=30, temperature=0)
    assert text_of(guessed) == text_of(plain)
    assert fewer < 0.7 * steps
    ways = both_ways(drafting, ask, max_tokens=20, temperature=1, seed=4)
    assert text_of(ways[0][1]) == text_of(ways[1][1])


def test_a_draft_model_guesses_for_many_at_once(drafting: LlamaEngine) -> None:
    """More than it has read, answers of one request, and some that have gone."""
    requests = [
        EngineRequest(
            request_id=f"many-{number}",
            chat=chat(f"{topic}? " * (90 if number else 1), max_tokens=10, n=1 + number % 2),
        )
        for number, topic in enumerate(["Why", "When", "Where"])
    ]
    _, events = answers(drafting, requests)
    assert all(reason_of(each) in ("stop", "length") for each in events)


def test_a_draft_model_that_is_wrong_is_asked_less(drafting: LlamaEngine) -> None:
    speculation = drafting._speculation
    assert speculation is not None and speculation._model is not None
    model = speculation._model
    for _ in range(60):
        model.note(4, 0)
    assert model.share < 0.05
    for _ in range(60):
        model.note(4, 4)
    assert model.share > 0.9
    assert [model.due() for _ in range(64)].count(2) == 1


def test_another_vocabulary_is_refused(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = size_of(read_header(smollm_path()), EngineSpec(engine="llama", context_length=256))
    monkeypatch.setattr(engine._model, "vocab_size", engine._model.vocab_size - 1)
    with pytest.raises(EngineLoadError, match="another vocabulary"):
        DraftModel(str(smollm_path()), engine._model, size, 1)
