"""Pictures through libmtmd: a real projector with random weights before the real starter model.

Random weights see nothing, but what they see changes what is said, and that is what is tested: the
bytes' way into the prompt's cells, and who shares and pays for them.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from local_runtime.engines.contract import (
    AdapterSpec,
    EngineEvent,
    EngineLoadError,
    EngineRequest,
    Finished,
    Piece,
)
from local_runtime.engines.llama import looking, scheduler
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.slots import Work
from plugins.contract import FailureKind
from tests.local_runtime import drawing
from tests.local_runtime.calls import engine_request, reason_of, text_of
from tests.local_runtime.engines.llama.driving import failure, prompt_tokens, run
from tests.local_runtime.engines.llama.making import (
    lora_file,
    projector_file,
    rows_and_columns_file,
)
from tests.local_runtime.engines.llama.mtmd_reference import as_llama_cpp_reads_it
from tests.local_runtime.engines.llama.seeing import (
    CELLS,
    CONTEXT_LENGTH,
    SEQUENCES_MAX,
    SYSTEM,
    answer,
    asked,
    parts,
    spec,
)


@pytest.fixture(scope="module", params=["mlp", "gemma3", "rows"])
def loaded_with_eyes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaEngine]:
    """``mlp``: a picture's cells see what is before them. ``gemma3``: they see each other.
    ``rows``: they are numbered in rows and columns, by a small model of random weights."""
    folder = tmp_path_factory.mktemp("projector")
    path = folder / "mmproj.gguf"
    if request.param == "rows":
        order = spec(
            projector_file(path, kind="qwen2vl_merger", width=64),
            path=str(rows_and_columns_file(folder / "model.gguf")),
            adapters={
                "red": AdapterSpec(
                    path=str(
                        lora_file(folder / "red.gguf", architecture="qwen2vl", width=64, layers=2)
                    )
                )
            },
        )
    else:
        order = spec(
            projector_file(path, kind=request.param),
            adapters={"red": AdapterSpec(path=str(lora_file(folder / "red.gguf")))},
        )
    engine = LlamaEngine()
    engine.load(order, lambda _fraction: None)
    yield engine
    engine.unload()


the_quick_one = pytest.mark.parametrize("loaded_with_eyes", ["rows"], indirect=True)
"""For tests of many requests."""


@pytest.fixture
def eyes(loaded_with_eyes: LlamaEngine) -> Iterator[LlamaEngine]:
    engine = loaded_with_eyes
    engine._prefixes.clear()
    yield engine
    assert not engine.has_work
    assert engine._slots.free == SEQUENCES_MAX
    assert not engine._voices
    engine._prefixes.clear()
    assert engine._cells.used == 0


@pytest.fixture
def whole_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are read in one piece, however slow the machine is: roundings are the same."""
    monkeypatch.setattr(scheduler, "CHUNK_TOKENS_MIN", 512)
    monkeypatch.setattr(looking, "CHUNK_TOKENS_MIN", 512)


@pytest.mark.usefixtures("whole_prompts")
def test_it_reads_as_llama_cpp_itself_does(eyes: LlamaEngine) -> None:
    for seed in (1, 2, 3):
        picture = drawing.png(120, 70, seed)
        request = asked("Look: ", picture, " What is it?", max_tokens=12)
        ours = text_of(answer(eyes, request))
        assert ours == as_llama_cpp_reads_it(eyes, SYSTEM, "Look: ", picture, " What is it?")


def test_what_it_sees_changes_what_it_says(eyes: LlamaEngine) -> None:
    texts = [
        text_of(answer(eyes, asked(drawing.png(seed=seed), "What is this?"))) for seed in range(4)
    ]
    assert len(set(texts)) >= 3
    again = [
        text_of(answer(eyes, asked(drawing.png(seed=seed), "What is this?"))) for seed in range(4)
    ]
    assert again == texts
    blind = text_of(answer(eyes, asked("What is this?")))
    assert blind not in texts


@the_quick_one
def test_the_place_and_the_order_matter(eyes: LlamaEngine) -> None:
    one, other = drawing.png(seed=1), drawing.png(seed=2)
    texts = {
        text_of(answer(eyes, asked(*pieces, max_tokens=24)))
        for pieces in (
            ("Compare", one, "with", other),
            ("Compare", other, "with", one),
            ("Compare with", one, other),
        )
    }
    assert len(texts) == 3


@the_quick_one
@pytest.mark.parametrize("make", [drawing.png, drawing.jpeg, drawing.gif, drawing.bmp])
def test_every_format(eyes: LlamaEngine, make: Callable[..., bytes]) -> None:
    events = answer(eyes, asked("See:", make(90, 50, 3)))
    assert isinstance(events[-1], Finished)
    assert reason_of(events) == "length"


@the_quick_one
def test_a_picture_counts_as_input(eyes: LlamaEngine) -> None:
    none = prompt_tokens(answer(eyes, asked("Look here.")))
    one = prompt_tokens(answer(eyes, asked("Look", drawing.png(), " here.")))
    two = prompt_tokens(answer(eyes, asked("Look", drawing.png(), drawing.png(), " here.")))
    assert two - one >= CELLS
    assert one - none >= CELLS


def test_what_was_seen_is_shared(eyes: LlamaEngine) -> None:
    """The same picture in the same place has its cells already, another does not."""
    first = answer(eyes, asked(drawing.png(), "What is it?", scope=""))
    assert first[-1].usage.cache_read_tokens == 0
    same = answer(eyes, asked(drawing.png(), "What colour is it?", scope=""))
    reader = eyes._intake._reader
    assert reader is not None
    if reader._projector.rows_and_columns:
        assert same[-1].usage.cache_read_tokens == 0  # llama.cpp does not save those
        return
    other = answer(eyes, asked(drawing.png(seed=9), "What is it?", scope=""))
    assert same[-1].usage.cache_read_tokens >= other[-1].usage.cache_read_tokens + CELLS
    assert other[-1].usage.cache_read_tokens >= 16  # the system prompt
    again = [answer(eyes, asked(drawing.png(), "What is it?", scope="")) for _ in range(2)]
    assert text_of(again[0]) == text_of(again[1])
    assert again[0][-1].usage.input_tokens == 1
    hidden = answer(eyes, asked(drawing.png(), "What is it?", scope="somebody else"))
    assert hidden[-1].usage.cache_read_tokens == 0


@the_quick_one
def test_it_is_decoded_and_encoded_once(eyes: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert eyes._looking is not None
    projector = eyes._looking._reader._projector
    done: list[str] = []

    def counted(name: str, real: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def call(given: Any) -> Any:
            done.append(name)
            return real(given)

        return call

    for name in ("read", "encode"):
        monkeypatch.setattr(projector, name, counted(name, getattr(projector, name)))
    picture = drawing.png(seed=77)
    texts = [text_of(answer(eyes, asked("What?", picture))) for _ in range(3)]
    assert texts[0] == texts[1] == texts[2]
    run(eyes, *(asked(question, picture, picture) for question in ("Three?", "Four?")))
    assert done == ["read", "encode"]


@the_quick_one
def test_it_is_encoded_again_when_it_was_forgotten(
    eyes: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local_runtime.engines.llama.media.VECTOR_BYTES_MAX", 1)
    pictures = [drawing.png(seed=seed) for seed in (31, 32, 33)]
    before = text_of(answer(eyes, asked("See", *pictures, "and say.")))
    assert text_of(answer(eyes, asked("See", *pictures, "and say."))) == before


def test_together_with_text(eyes: LlamaEngine) -> None:
    """Streams of text go on beside pictures, and everybody pays for what is his."""
    before_ns = eyes.busy_ns, eyes.unbilled_ns
    looks = [asked(f"{n}:", drawing.png(seed=40 + n), "Say.", max_tokens=8) for n in range(3)]
    writes = asked("Write a poem.", max_tokens=40)
    eyes.submit(writes)
    while not any(isinstance(event, Piece) for event in eyes.step()):
        pass
    for each in looks:
        eyes.submit(each)
    events: dict[str, list[EngineEvent]] = {each.request_id: [] for each in (*looks, writes)}
    silent = most = 0
    while eyes.has_work:
        now = eyes.step()
        for event in now:
            events[event.request_id].append(event)
        spoke = any(e.request_id == writes.request_id and isinstance(e, Piece) for e in now)
        silent = 0 if spoke else silent + 1
        if not any(isinstance(event, Finished) for event in events[writes.request_id]):
            most = max(most, silent)
    assert most <= 2  # every other step is the text's
    ends = [each[-1] for each in events.values()]
    assert all(isinstance(end, Finished) for end in ends)
    billed = sum(end.usage.compute_ns for end in ends)
    first_ns = eyes.busy_ns - before_ns[0]
    assert billed + eyes.unbilled_ns - before_ns[1] == first_ns


def test_the_limit_on_compute_holds(eyes: LlamaEngine) -> None:
    for limit_ns in (0, 1_000, 5_000_000, 20_000_000):
        request = asked("See", drawing.png(seed=limit_ns), compute_ns_max=limit_ns)
        end = answer(eyes, request)[-1]
        assert isinstance(end, Finished)
        assert end.usage.compute_ns <= limit_ns


@the_quick_one
def test_several_answers(eyes: LlamaEngine) -> None:
    request = asked("What is it?", drawing.png(seed=5), n=3, seed=4, temperature=1.0)
    events = answer(eyes, request)
    assert all(reason_of(events, index) == "length" for index in range(3))
    assert len({text_of(events, index) for index in range(3)}) > 1


def test_an_adapter_sees_too(eyes: LlamaEngine) -> None:
    plain, adapted = (
        text_of(answer(eyes, replace(asked("What?", drawing.png(seed=6)), adapter=name)))
        for name in ("", "red")
    )
    assert plain != adapted


@the_quick_one
def test_cancelled_at_every_step(eyes: LlamaEngine) -> None:
    """In the middle of a picture or not: nothing stays behind (the fixture looks)."""
    for steps in range(12):
        request = asked("See", drawing.png(seed=500 + steps), drawing.png(seed=900), scope="")
        eyes.submit(request)
        for _ in range(steps):
            eyes.step()
        eyes.cancel(request.request_id)
        while eyes.has_work:
            last = eyes.step()
        assert steps > 10 or isinstance(last[-1], Finished)
    # What a cancelled one left in the cache is right to go on from.
    left = text_of(
        answer(eyes, asked("See", drawing.png(seed=505), drawing.png(seed=900), scope=""))
    )
    fresh = text_of(answer(eyes, asked("See", drawing.png(seed=505), drawing.png(seed=900))))
    assert left == fresh


@the_quick_one
def test_a_crowd_in_little_room(eyes: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eviction, cancelling and sharing at any time: all get the answer they would get alone."""
    chance = random.Random(3)
    pictures = [drawing.png(40 + 30 * seed, 60, seed) for seed in range(5)]

    def one() -> EngineRequest:
        seen = chance.choices(pictures, k=chance.randrange(3))
        scope = chance.choice(["", "", None])
        adapter = chance.choice(["", "red"])
        request = asked("Look:", *seen, "What?", scope=scope, max_tokens=chance.randrange(1, 30))
        return replace(request, adapter=adapter)

    requests = [one() for _ in range(40)]
    alone = {
        each.request_id: text_of(
            answer(eyes, replace(each, request_id=f"{each.request_id}-alone", cache_scope=None))
        )
        for each in requests
    }
    monkeypatch.setattr(eyes, "_limits", dataclasses.replace(eyes._limits, cells=540))
    evicted: list[object] = []

    def youngest(running: list[Work], limits: scheduler.Limits) -> list[Work]:
        """Somebody has to leave much more often than room is short."""
        gone = running[-1:] if len(running) > 1 and chance.random() < 0.1 else []
        evicted.extend(gone)
        return gone or to_evict(running, limits)

    to_evict = scheduler.to_evict
    monkeypatch.setattr(scheduler, "to_evict", youngest)
    cancelled = {each.request_id for each in chance.sample(requests, 8)}
    events: dict[str, list[EngineEvent]] = {each.request_id: [] for each in requests}
    waiting = list(requests)
    steps = 0
    while eyes.has_work or waiting:
        if waiting and steps % 2 == 0:
            eyes.submit(waiting.pop())
        if cancelled and chance.random() < 0.1:
            eyes.cancel(chance.choice(sorted(cancelled)))
        for event in eyes.step():
            events[event.request_id].append(event)
        steps += 1
    assert all(isinstance(each[-1], Finished) for each in events.values())
    assert len(evicted) > 10
    whole = [each for each in requests if each.request_id not in cancelled]
    same = sum(text_of(events[each.request_id]) == alone[each.request_id] for each in whole)
    assert same >= len(whole) * 3 // 4  # who shares a batch may move a rounding, and so a word


@the_quick_one
def test_text_that_looks_like_a_marker_is_text(eyes: LlamaEngine) -> None:
    for text in ("<__media__>", "\ue0000-0\ue001", "<image>"):
        events = answer(eyes, asked(f"What is {text} here?", drawing.png()))
        assert isinstance(events[-1], Finished)
        assert isinstance(answer(eyes, asked(f"What is {text} here?"))[-1], Finished)


@the_quick_one
def test_too_many_cells(eyes: LlamaEngine) -> None:
    failed = failure(answer(eyes, asked("All of these:", *[drawing.png()] * 31)))
    assert (failed.kind, failed.param) == (FailureKind.CONTEXT_LENGTH, "messages")
    assert str(CONTEXT_LENGTH) in failed.message
    failed = failure(answer(eyes, asked("All of these:", *[drawing.png()] * 33)))
    assert failed.kind is FailureKind.BAD_REQUEST
    assert "messages[1].content[33]" in failed.message


@the_quick_one
def test_pictures_where_none_can_be(eyes: LlamaEngine) -> None:
    content, media = parts("Look:", drawing.png())
    request = engine_request(messages=[{"role": "system", "content": content}])
    failed = failure(answer(eyes, replace(request, media=media)))
    assert "messages[0].content" in failed.message
    failed = failure(answer(eyes, replace(asked("Look:", drawing.png()), media=[])))
    assert failed.kind is FailureKind.BAD_REQUEST


def test_a_model_without_a_projector(engine: LlamaEngine) -> None:
    failed = failure(answer(engine, asked("Look:", drawing.png())))
    assert failed.kind is FailureKind.BAD_REQUEST
    assert "messages[1].content[1]" in failed.message


@the_quick_one
def test_a_hundred_malformed_pictures(eyes: LlamaEngine) -> None:
    """Refused with the place, or read after all, where the damage is in the pixels alone."""
    chance = random.Random(7)
    refused = 0
    for number in range(100):
        make = (drawing.png, drawing.jpeg, drawing.gif, drawing.bmp)[number % 4]
        data = bytearray(make(chance.randrange(1, 99), chance.randrange(1, 99), number))
        for _ in range(chance.randrange(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if number % 3 == 0:
            del data[chance.randrange(len(data)) :]
        events = answer(eyes, asked("See:", bytes(data), max_tokens=1))
        if not isinstance(events[-1], Finished):
            failed = failure(events)
            assert failed.kind is FailureKind.BAD_REQUEST
            assert failed.message.startswith("messages[1].content[1]: ")
            refused += 1
    assert refused > 50
    assert isinstance(answer(eyes, asked("See:", drawing.png()))[-1], Finished)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"width": 320}, "does not fit"), ({"architecture": "llama"}, "no projector")],
)
def test_a_projector_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = projector_file(tmp_path / "odd.gguf", **changes)
    with pytest.raises(EngineLoadError, match=words):
        LlamaEngine().load(spec(path), lambda _fraction: None)
