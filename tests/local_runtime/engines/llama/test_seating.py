"""Sequences move between one cache and one each, in mid-sentence, and nobody notices."""

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from local_runtime.engines.contract import EngineRequest, Finished
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.slots import Sequence
from tests.local_runtime.calls import engine_request, text_of
from tests.local_runtime.engines.llama.driving import SEQUENCES_MAX, one, prompt_tokens, run

TEXTS = ["Tell me of the sea.", "What is a fern?", "Name three rivers.", "Why do cats purr?"]


@pytest.fixture(autouse=True)
def unified(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing kept, one cache for all, and no change that a test does not ask for. Prompts are read
    in one portion: how they are divided shows in the last bits, and follows the clock."""
    for name in ("CHUNK_NS_ALONE", "CHUNK_NS_BESIDE_OUTPUT"):
        monkeypatch.setattr(f"local_runtime.engines.llama.scheduler.{name}", 10**15)
    scan_ns, engine._seating.layout._scan_ns = engine._seating.layout._scan_ns, 0.0
    engine._prefixes.clear()
    arrange(engine, 1)
    yield
    arrange(engine, 1)
    engine._seating.layout._scan_ns = scan_ns
    engine._seating.layout._rest_until_ns = 0


def arrange(engine: LlamaEngine, streams: int) -> None:
    engine._seating._arrange(streams, engine._running)
    engine._seating.spent_ns()


def request(text: str, **params: Any) -> EngineRequest:
    return engine_request(text, **{"temperature": 0, "max_tokens": 24, **params})


def slots(engine: LlamaEngine) -> list[int]:
    return sorted(each.slot for each in seated(engine) if each.slot is not None)


def seated(engine: LlamaEngine) -> list[Sequence]:
    return [each for work in engine._running for each in work.live if each.slot is not None]


@pytest.mark.parametrize("layouts", [[4], [4, 1], [1, 4, 1, 4]])
def test_what_is_known_stays_the_same(engine: LlamaEngine, layouts: list[int]) -> None:
    """To the byte in the cache, and for what comes next as near as numbers are."""
    for text in TEXTS:
        engine.submit(request(text, max_tokens=60, ignore_eos=True))
    while not all(each.generates for each in seated(engine)):
        engine.step()
    for streams in layouts:
        before = [(cells_of(engine, each), next_logits(engine, each)) for each in seated(engine)]
        arrange(engine, streams)
        assert engine._context.streams == streams
        for each, (cells, logits) in zip(seated(engine), before, strict=True):
            assert cells_of(engine, each) == cells
            assert np.abs(next_logits(engine, each) - logits).max() < 0.05
        for _ in range(3):
            engine.step()
    while engine.has_work:
        engine.step()


def cells_of(engine: LlamaEngine, sequence: Sequence) -> bytes:
    """Keys and values of a sequence; before them come its count of cells, and 12 bytes for each."""
    assert sequence.slot is not None
    state = engine._context.save(sequence.slot)
    assert int.from_bytes(state.body[:4], sys.byteorder) == sequence.computed
    return state.body[4 + 12 * sequence.computed :]


def next_logits(engine: LlamaEngine, sequence: Sequence) -> NDArray[np.float32]:
    """What it would choose its next token from; leaves everything as it is."""
    assert sequence.slot is not None
    context, length = engine._context, sequence.computed
    row = context.add(sequence.tokens[length:], length, sequence.slot, outputs=1)
    assert context.decode() == 0
    logits = context.logits(row).copy()
    context.truncate(sequence.slot, length)
    return logits


def test_nothing_is_read_again(engine: LlamaEngine) -> None:
    asked = [request(text) for text in TEXTS]
    alone = [prompt_tokens(run(engine, each)[each.request_id]) for each in asked]
    engine._prefixes.clear()
    asked = [request(text) for text in TEXTS]
    for each in asked:
        engine.submit(each)
    for _ in range(8):
        engine.step()
    before = [each.computed for each in seated(engine)]
    arrange(engine, 4)
    assert [each.computed for each in seated(engine)] == before
    assert engine._cells.used == sum(before)
    assert all(count > tokens for count, tokens in zip(before, alone, strict=True))
    while engine.has_work:
        engine.step()


def test_in_caches_of_their_own_equal_beginnings_are_copied(engine: LlamaEngine) -> None:
    arrange(engine, 4)
    system = "Answer in short words. " * 12
    messages = [
        [{"role": "system", "content": system}, {"role": "user", "content": text}] for text in TEXTS
    ]
    asked = [request("", messages=each) for each in messages]
    events = run(engine, *asked)
    read = [events[each.request_id][-1].usage for each in asked]
    assert sum(usage.cache_read_tokens > 60 for usage in read) == 3
    for each in asked:
        assert events[each.request_id][-1].usage.output_tokens == 24


def test_several_answers_of_one_prompt(engine: LlamaEngine) -> None:
    arrange(engine, 4)
    events = one(engine, TEXTS[0], n=3, temperature=0, max_tokens=12)
    assert len({text_of(events, at) for at in range(3)}) == 1
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.output_tokens == 36


def test_what_was_kept_in_one_layout_is_found_in_the_other(engine: LlamaEngine) -> None:
    long = "Rivers run to the sea. " * 20
    for streams in (4, 1, 4):
        arrange(engine, streams)
        events = one(engine, long, temperature=0, max_tokens=4)
        found = events[-1].usage.cache_read_tokens
        assert (found > 100) == (streams == 1 or found > 0)
        said = text_of(events)
    assert said == text_of(one(engine, long, temperature=0, max_tokens=4))
    assert found > 100


def test_whoever_needs_more_room_gets_it(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is too long for a quarter of the cache, or a half, ends the division, nothing else."""
    monkeypatch.setattr(engine, "_speculation", None)  # whose steps are as long as they please
    arrange(engine, 4)
    engine._seating.layout._cells = 1024
    try:
        arrange(engine, 4)
        assert engine._context.room == 256
        short = request(TEXTS[0], max_tokens=40)
        expected = text_of(run(engine, short)[short.request_id])
        engine._prefixes.clear()
        short, long = request(TEXTS[0], max_tokens=40), request("sun " * 300, max_tokens=4)
        engine.submit(short)
        events = engine.step() + engine.step()
        engine.submit(long)
        while engine.has_work:
            events += engine.step()
        assert engine._context.streams == 2
        mine = text_of([e for e in events if e.request_id == short.request_id])
        assert mine[:20] == expected[:20]
        growing = run(engine, request("sun " * 200, max_tokens=270, ignore_eos=True))
        assert next(iter(growing.values()))[-1].usage.output_tokens == 270
        assert engine._context.streams == 1
    finally:
        engine._seating.layout._cells = engine._limits.cells


def test_nobody_sits_behind_an_empty_place(engine: LlamaEngine) -> None:
    arrange(engine, 4)
    asked = [request(text, max_tokens=40, ignore_eos=True) for text in TEXTS]
    for each in asked:
        engine.submit(each)
    for _ in range(6):
        engine.step()
    before = {each.slot: (each, cells_of(engine, each)) for each in seated(engine)}
    assert sorted(slot for slot in before if slot is not None) == [0, 1, 2, 3]
    engine.cancel(asked[0].request_id)
    engine.cancel(asked[2].request_id)
    engine._seating.settle(engine._running)
    assert slots(engine) == [0, 1]
    for was, now in ((3, 0), (1, 1)):
        sequence, cells = before[was]
        assert sequence.slot == now
        assert cells_of(engine, sequence) == cells
    while engine.has_work:
        engine.step()


@pytest.mark.parametrize("text", ["Why?", "Why? " * 60])
def test_a_seed_says_the_same_in_either_layout(engine: LlamaEngine, text: str) -> None:
    said = set()
    for streams in (1, 4, 2, 1):
        arrange(engine, streams)
        said.add(text_of(one(engine, text, seed=5, temperature=1.1, max_tokens=20)))
    assert len(said) == 1


def test_many_at_once_divide_the_cache_of_themselves(engine: LlamaEngine) -> None:
    engine._seating.layout._scan_ns = 1e9
    engine._seating.layout._rest_until_ns = 0
    before = engine.busy_ns, engine.unbilled_ns
    events = run(engine, *[request(text) for text in TEXTS])
    assert engine._context.streams == SEQUENCES_MAX
    billed = sum(found[-1].usage.compute_ns for found in events.values())
    spent, borne = engine.busy_ns - before[0], engine.unbilled_ns - before[1]
    assert borne > 0
    assert billed == spent - borne


def test_no_room_for_what_moves(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a copy is not taken back, it is read again."""
    asked = [request(text) for text in TEXTS[:2]]
    expected = [text_of(run(engine, each)[each.request_id]) for each in asked]
    engine._prefixes.clear()
    asked = [request(text) for text in TEXTS[:2]]
    for each in asked:
        engine.submit(each)
    events = []
    for _ in range(6):
        events += engine.step()
    with monkeypatch.context() as patched:
        patched.setattr(engine._context, "restore", refusing(engine))
        arrange(engine, 4)
    assert [each.computed for each in seated(engine)] == [0, 0]
    while engine.has_work:
        events += engine.step()
    for each, text in zip(asked, expected, strict=True):
        mine = [e for e in events if e.request_id == each.request_id]
        assert text_of(mine)[:20] == text[:20]
        assert mine[-1].usage.output_tokens == 24


def refusing(engine: LlamaEngine) -> Callable[..., bool]:
    return lambda _slot, _state: False


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_the_mirror_holds(engine: LlamaEngine, seed: int) -> None:
    chance = random.Random(seed)
    open_ids: list[str] = []
    before = engine.busy_ns, engine.unbilled_ns
    bills: dict[str, int] = {}
    for _ in range(60):
        if chance.random() < 0.5 and len(open_ids) < 7:
            asked = request(
                " ".join(chance.choice(["sun", "rain"]) for _ in range(chance.randint(1, 40))),
                max_tokens=chance.randint(1, 14),
                n=chance.choice([1, 1, 1, 2]),
                ignore_eos=True,
            )
            engine.submit(asked)
            open_ids.append(asked.request_id)
        if open_ids and chance.random() < 0.15:
            engine.cancel(chance.choice(open_ids))
        if chance.random() < 0.2:
            fits = len(seated(engine)) <= 2
            arrange(engine, chance.choice([1, 4, 2] if fits else [1, 4]))
        for event in engine.step():
            bills[event.request_id] = event.usage.compute_ns
            if isinstance(event, Finished):
                open_ids.remove(event.request_id)
        held = {each.slot: each.computed for each in seated(engine)}
        places = engine._context.streams if engine._context.streams > 1 else SEQUENCES_MAX
        for slot in range(SEQUENCES_MAX):
            assert engine._context.length(slot) == held.get(slot, 0)
        assert set(held) <= set(range(places))
        if engine._context.streams > 1:
            assert engine._cells.used == sum(held.values())
    for request_id in open_ids:
        engine.cancel(request_id)
    while engine.has_work:
        for event in engine.step():
            bills[event.request_id] = event.usage.compute_ns
    assert sum(bills.values()) == engine.busy_ns - before[0] - (engine.unbilled_ns - before[1])
    assert engine._cells.used == 0
