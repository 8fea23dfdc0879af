"""LoRA adapters beside the model itself: random weights, so that they change what it says."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from local_runtime.engines.contract import (
    AdapterSpec,
    EngineLoadError,
    EngineRequest,
    EngineSpec,
    Finished,
    Piece,
)
from local_runtime.engines.llama import scheduler
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.turns import STEPS, Turns
from local_runtime.store.gguf import GgufError, read_header
from plugins.contract import FailureKind
from tests.local_runtime.calls import engine_request, reason_of, smollm_path, text_of
from tests.local_runtime.engines.llama.driving import failure, run
from tests.local_runtime.engines.llama.making import lora_file

SEQUENCES_MAX = 6
LONG = "You are a patient clerk. " * 12


def spec(adapters: dict[str, AdapterSpec]) -> EngineSpec:
    return EngineSpec(
        engine="llama",
        path=str(smollm_path()),
        context_length=512,
        threads=1,
        sequences_max=SEQUENCES_MAX,
        speculation=False,
        adapters=adapters,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterSpec]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "red": AdapterSpec(path=str(lora_file(folder / "red.gguf", seed=1))),
        "blue": AdapterSpec(path=str(lora_file(folder / "blue.gguf", seed=2))),
        "faint": AdapterSpec(path=str(lora_file(folder / "faint.gguf", seed=1)), scale=0.0),
    }


@pytest.fixture(scope="module")
def loaded_with_adapters(files: dict[str, AdapterSpec]) -> Iterator[LlamaEngine]:
    engine = LlamaEngine()
    engine.load(spec(files), lambda _fraction: None)
    yield engine
    engine.unload()


@pytest.fixture
def adapted(loaded_with_adapters: LlamaEngine) -> Iterator[LlamaEngine]:
    engine = loaded_with_adapters
    engine._prefixes.clear()
    yield engine
    assert not engine.has_work
    assert engine._slots.free == SEQUENCES_MAX
    assert not engine._voices


def asked(
    text: str, adapter: str = "", *, max_tokens: int = 16, scope: str | None = None
) -> EngineRequest:
    """Cells that are found instead of computed may move a rounding, so they are not shared here."""
    request = engine_request(text, temperature=0, max_tokens=max_tokens, ignore_eos=True)
    return replace(request, adapter=adapter, cache_scope=scope)


def said(engine: LlamaEngine, request: EngineRequest) -> str:
    return text_of(run(engine, request)[request.request_id])


@pytest.fixture
def whole_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are read in one piece, however slow the machine is: roundings are the same."""
    monkeypatch.setattr(scheduler, "CHUNK_TOKENS_MIN", 512)


@pytest.mark.usefixtures("whole_prompts")
def test_each_says_something_else(adapted: LlamaEngine) -> None:
    question = "What is the capital of France?"
    answers = {name: said(adapted, asked(question, name)) for name in ("", "red", "blue", "faint")}
    assert len({answers[""], answers["red"], answers["blue"]}) == 3
    assert answers["faint"] == answers[""]  # at a scale of 0 it changes nothing
    again = {name: said(adapted, asked(question, name)) for name in answers}
    assert again == answers


@pytest.mark.usefixtures("whole_prompts")
def test_the_model_itself_is_the_same_beside_them(adapted: LlamaEngine) -> None:
    alone = [asked(f"Tell me about {thing}.", max_tokens=24) for thing in ("tea", "rain")]
    before = [said(adapted, each) for each in alone]
    for text, request in zip(before, alone, strict=True):
        beside = [asked("Count to ten.", name, max_tokens=30) for name in ("red", "blue", "red")]
        mine = replace(request, request_id=f"{request.request_id}-again")
        events = run(adapted, *beside[:2], mine, *beside[2:])
        assert text_of(events[mine.request_id]) == text


def test_mixed_traffic(adapted: LlamaEngine) -> None:
    names = ["", "red", "blue", "", "red", "blue", "red", ""]
    questions = [f"Say something about the number {n}." for n in range(len(names))]
    alone = [said(adapted, asked(text, name)) for text, name in zip(questions, names, strict=True)]
    begun_ns = adapted.busy_ns, adapted.unbilled_ns
    requests = [asked(text, name) for text, name in zip(questions, names, strict=True)]
    events = run(adapted, *requests)
    together = [text_of(events[request.request_id]) for request in requests]
    # Who shares a batch may move a rounding, and so a word, but not which weights it came from.
    same = sum(one == other for one, other in zip(alone, together, strict=True))
    assert same >= len(names) - 2
    last = [events[request.request_id][-1] for request in requests]
    assert all(isinstance(event, Finished) for event in last)
    assert all(reason_of(events[request.request_id]) == "length" for request in requests)
    billed = sum(event.usage.compute_ns for event in last)
    busy = adapted.busy_ns - begun_ns[0]
    assert busy == billed + adapted.unbilled_ns - begun_ns[1]


def test_nobody_starves(adapted: LlamaEngine) -> None:
    """One stream comes beside five of another adapter, and all go on."""
    crowd = [asked(f"Count from {n}.", "", max_tokens=200) for n in range(5)]
    lone = asked("Count.", "red", max_tokens=40)
    pieces = dict.fromkeys((request.request_id for request in (*crowd, lone)), 0)

    def step() -> bool:
        over = False
        for event in adapted.step():
            pieces[event.request_id] += isinstance(event, Piece)
            over = over or isinstance(event, Finished)
        return over

    for request in crowd:
        adapted.submit(request)
    while min(pieces[request.request_id] for request in crowd) < 1:
        step()
    adapted.submit(lone)
    before = dict(pieces)
    while not step():
        pass
    assert pieces[lone.request_id] == 40
    # A turn may end early where steps are slow, but each has one step at least.
    assert min(pieces[each.request_id] - before[each.request_id] for each in crowd) >= 40 // STEPS
    for request in crowd:
        adapted.cancel(request.request_id)
    while adapted.has_work:
        adapted.step()


def test_beginnings_are_not_shared_between_them(adapted: LlamaEngine) -> None:
    def cached(name: str) -> int:
        request = asked(LONG, name, max_tokens=2, scope="")
        return run(adapted, request)[request.request_id][-1].usage.cache_read_tokens

    assert [cached(name) for name in ("", "red", "blue")] == [0, 0, 0]
    assert min(cached(name) for name in ("", "red", "blue")) > 50


def test_beginnings_are_not_shared_while_they_run(adapted: LlamaEngine) -> None:
    requests = [asked(LONG, name, max_tokens=8, scope="") for name in ("", "red", "", "red")]
    events = run(adapted, *requests)
    found = [events[request.request_id][-1].usage.cache_read_tokens for request in requests]
    assert found[:2] == [0, 0]
    assert min(found[2:]) > 50
    assert text_of(events[requests[0].request_id]) == text_of(events[requests[2].request_id])
    assert text_of(events[requests[1].request_id]) == text_of(events[requests[3].request_id])


def test_an_unknown_adapter(adapted: LlamaEngine) -> None:
    request = asked("Hello.", "green")
    failed = failure(run(adapted, request)[request.request_id])
    assert (failed.kind, failed.param) == (FailureKind.BAD_REQUEST, "model")
    assert "green" in failed.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "qwen2"}, ["qwen2", "llama"]),
        ({"kind": "control"}, ["no LoRA adapter"]),
        ({"width": 320}, ["does not fit"]),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, object], words: list[str]
) -> None:
    path = lora_file(tmp_path / "odd.gguf", **changes)  # type: ignore[arg-type]
    with pytest.raises(EngineLoadError) as caught:
        LlamaEngine().load(spec({"odd": AdapterSpec(path=str(path))}), lambda _fraction: None)
    assert all(word in str(caught.value) for word in ["odd", *words])


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = lora_file(tmp_path / "cut.gguf")
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(GgufError):
        read_header(path)
    with pytest.raises(EngineLoadError, match="cut"):
        LlamaEngine().load(spec({"cut": AdapterSpec(path=str(path))}), lambda _fraction: None)


class _Sequence:
    follows = None


class _Work:
    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        self.live = [_Sequence()]


@given(st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=200))
@settings(max_examples=200, deadline=None)
def test_turns_come_round(busy: list[set[str]]) -> None:
    """Whoever has something to do waits for at most one turn of each of the others."""
    turns = Turns()
    waited = dict.fromkeys("abcd", 0)
    for names in busy:
        chosen = turns.whose([_Work(name) for name in sorted(names)])  # type: ignore[misc]
        assert chosen in names
        turns.spent(1_000_000)
        for name in waited:
            waited[name] = waited[name] + 1 if name in names and name != chosen else 0
            assert waited[name] <= 3 * STEPS + STEPS
    assert isinstance(turns.whose([]), str)


def test_quick_turns_are_as_long_for_all() -> None:
    turns = Turns()
    works = [_Work("a"), _Work("a"), _Work("b")]
    chosen = []
    for _ in range(STEPS * 20):
        chosen.append(turns.whose(works))  # type: ignore[arg-type]
        turns.spent(1_000_000)
    assert chosen.count("a") == chosen.count("b")
    assert sum(one != other for one, other in pairwise(chosen)) == 19
