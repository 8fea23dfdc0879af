"""Prompts that start alike are read once: side by side, over time, and only within their scope."""

import random
from typing import Any

import numpy as np
import pytest

from local_runtime.engines.contract import EngineEvent, EngineRequest, Finished, Worked
from local_runtime.engines.llama.batch import Spoken
from local_runtime.engines.llama.cells import length_of
from local_runtime.engines.llama.engine import LlamaEngine
from local_runtime.engines.llama.prefix import common
from local_runtime.engines.llama.scheduler import Limits, Row
from local_runtime.engines.llama.slots import Work
from plugins.contract import Usage
from tests.local_runtime.calls import engine_request, text_of
from tests.local_runtime.engines.llama.driving import one, prompt_tokens, run

SYSTEM = "You are a careful gardener. " + "Roses like the sun and tulips the rain. " * 20


@pytest.fixture(autouse=True)
def nothing_kept(engine: LlamaEngine) -> None:
    engine._prefixes.clear()


def request(text: str, *, scope: str | None = "", **params: Any) -> EngineRequest:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    params = {"temperature": 0, "max_tokens": 6, "ignore_eos": True, **params}
    asked = engine_request(messages=messages, **params)
    return EngineRequest(request_id=asked.request_id, chat=asked.chat, cache_scope=scope)


def usage(events: list[EngineEvent]) -> Usage:
    last = events[-1]
    assert isinstance(last, Finished)
    return last.usage


def ask(engine: LlamaEngine, text: str, **more: Any) -> list[EngineEvent]:
    asked = request(text, **more)
    return run(engine, asked)[asked.request_id]


def test_the_second_time_only_the_end_is_read(engine: LlamaEngine) -> None:
    first = ask(engine, "What do roses like?")
    again = ask(engine, "What do roses like?")
    other = ask(engine, "And tulips, what do they like?")
    assert usage(first).cache_read_tokens == 0
    assert usage(again).input_tokens == 1
    assert prompt_tokens(again) == prompt_tokens(first)
    assert text_of(again) == text_of(first)
    assert usage(other).cache_read_tokens > 180
    assert usage(again).compute_ns < usage(first).compute_ns


def test_side_by_side_the_common_part_is_read_once(engine: LlamaEngine) -> None:
    texts = ["What do roses like?", "Where do tulips grow?", "Who waters them?", "Why?"]
    alone = {}
    for text in texts:
        engine._prefixes.clear()
        alone[text] = ask(engine, text)
    engine._prefixes.clear()
    requests = {text: request(text) for text in texts}
    together = run(engine, *requests.values())
    read = 0
    for text, asked in requests.items():
        events = together[asked.request_id]
        assert prompt_tokens(events) == prompt_tokens(alone[text])
        assert usage(events).output_tokens == 6
        read += usage(events).input_tokens
    assert read < prompt_tokens(alone[texts[0]]) + 4 * 32


def test_a_conversation_goes_on_where_it_was(engine: LlamaEngine) -> None:
    first = ask(engine, "What do roses like?", max_tokens=12)
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "What do roses like?"},
        {"role": "assistant", "content": text_of(first)},
        {"role": "user", "content": "Why?"},
    ]
    second = one(engine, messages=messages, max_tokens=2)
    assert usage(second).cache_read_tokens >= prompt_tokens(first) + 8


@pytest.mark.parametrize(("one_scope", "other_scope"), [("a", "b"), ("", "a"), (None, None)])
def test_scopes_share_nothing(
    engine: LlamaEngine, one_scope: str | None, other_scope: str | None
) -> None:
    asked = [request("Why?", scope=one_scope), request("Why?", scope=other_scope)]
    together = run(engine, *asked)
    after = ask(engine, "Why?", scope=other_scope)
    for each in asked:
        assert usage(together[each.request_id]).cache_read_tokens == 0
    assert (usage(after).cache_read_tokens > 0) == (other_scope is not None)
    assert all(kept.scope is not None for kept in engine._prefixes.kept)


@pytest.mark.parametrize("after_steps", [1, 2])
def test_followers_survive_their_leader(engine: LlamaEngine, after_steps: int) -> None:
    alone = ask(engine, "What do roses like?")
    engine._prefixes.clear()
    leader, follower = request("Where?"), request("What do roses like?")
    engine.submit(leader)
    engine.submit(follower)
    events: list[EngineEvent] = []
    for _ in range(after_steps):
        events += engine.step()
    assert engine._running[1].live[0].follows is engine._running[0].live[0]
    engine.cancel(leader.request_id)
    while engine.has_work:
        events += engine.step()
    mine = [event for event in events if event.request_id == follower.request_id]
    assert prompt_tokens(mine) == prompt_tokens(alone)
    assert usage(mine).output_tokens == 6


def test_followers_without_a_leader_do_not_wait_for_each_other(engine: LlamaEngine) -> None:
    asked = [
        request(text) for text in ("Where?", "What do roses like?", "Why?", "Who waters them?")
    ]
    for each in asked:
        engine.submit(each)
    events = engine.step()
    assert sum(work.live[0].follows is not None for work in engine._running) == 3
    engine.cancel(asked[0].request_id)
    for _ in range(200):
        events += engine.step()
        if not engine.has_work:
            break
    assert not engine.has_work
    for each in asked[1:]:
        assert usage([e for e in events if e.request_id == each.request_id]).output_tokens == 6


def test_followers_give_signs_of_life(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_runtime.engines.llama.engine.SIGN_OF_LIFE_NS", 0)
    leader, follower = request("Where?"), request("What do roses like?")
    events = run(engine, leader, follower)
    assert isinstance(events[follower.request_id][1], Worked)


def test_the_least_used_goes_when_memory_runs_out(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(engine, "Why?")
    monkeypatch.setattr(engine._prefixes, "_bytes_max", engine._prefixes.kept_bytes * 2)
    for topic in ("rain " * 60, "wind " * 60, "fire " * 60, "snow " * 60):
        one(engine, topic, max_tokens=4)
        again = ask(engine, "Why?")
        assert engine._prefixes.kept_bytes <= engine._prefixes._bytes_max
    assert usage(again).cache_read_tokens > 180  # used all the time, so it stayed
    assert usage_of_topic(engine, "rain " * 60) < 60


def test_evicted_work_need_not_be_read_again(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one had computed when it had to leave comes back as it was."""
    monkeypatch.setattr(engine, "_limits", Limits(cells=300, batch_tokens=512))
    requests = [
        engine_request(f"{topic} " * 40, max_tokens=60, ignore_eos=True, temperature=0)
        for topic in ("rain", "wind", "fire")
    ]
    computed = 0
    run_rows = engine._steps.run

    def counting(rows: list[Row]) -> list[Spoken]:
        nonlocal computed
        computed += sum(row.tokens for row in rows if not row.generates)
        return run_rows(rows)

    monkeypatch.setattr(engine._steps, "run", counting)
    evicted: list[Work] = []
    evict = engine._evict

    def noting(work: Work) -> None:
        evicted.append(work)
        evict(work)

    monkeypatch.setattr(engine, "_evict", noting)
    answers = run(engine, *requests)
    assert evicted
    assert computed <= sum(prompt_tokens(answers[each.request_id]) for each in requests)
    assert all(usage(answers[each.request_id]).output_tokens == 60 for each in requests)


def usage_of_topic(engine: LlamaEngine, text: str) -> int:
    return usage(one(engine, text, max_tokens=1)).cache_read_tokens


def check_mirror(engine: LlamaEngine) -> None:
    """What we believe of the cache is what llama.cpp has."""
    held: dict[int, int] = {}
    for work in engine._running:
        for sequence in work.live:
            assert sequence.slot is not None
            assert length_of(sequence.path) == sequence.computed
            held[sequence.slot] = sequence.computed
    for slot in range(engine._slots.count):
        assert engine._context.length(slot) == held.get(slot, 0)
    assert engine._slots.free == engine._slots.count - len(held)
    assert engine._cells.used <= engine._limits.cells


@pytest.mark.parametrize("seed", range(3))
def test_the_mirror_holds_whatever_comes(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random prompts with common beginnings, several answers, cancels, in a cache that is short."""
    monkeypatch.setattr(engine, "_limits", Limits(cells=400, batch_tokens=512))
    chance = random.Random(seed)
    open_ids: list[str] = []
    before = engine.busy_ns, engine.unbilled_ns
    bills: dict[str, int] = {}
    for _ in range(50):
        if chance.random() < 0.5 and len(open_ids) < 9:
            asked = engine_request(
                " ".join(chance.choice(["sun", "rain"]) for _ in range(chance.randint(1, 60))),
                max_tokens=chance.randint(1, 12),
                n=chance.choice([1, 1, 1, 3]),
                ignore_eos=True,
            )
            scoped = EngineRequest(
                request_id=asked.request_id,
                chat=asked.chat,
                cache_scope=chance.choice(["", "", "a", None]),
                fairness_key=chance.choice("xyz"),
            )
            engine.submit(scoped)
            open_ids.append(asked.request_id)
        if open_ids and chance.random() < 0.15:
            engine.cancel(chance.choice(open_ids))
        for event in engine.step():
            bills[event.request_id] = event.usage.compute_ns
            if isinstance(event, Finished):
                open_ids.remove(event.request_id)
        check_mirror(engine)
    for request_id in open_ids:
        engine.cancel(request_id)
    while engine.has_work:
        for event in engine.step():
            bills[event.request_id] = event.usage.compute_ns
    check_mirror(engine)
    assert sum(bills.values()) == engine.busy_ns - before[0] - (engine.unbilled_ns - before[1])
    assert engine._cells.used == 0
    assert engine._slots.free == engine._slots.count
    engine._prefixes.clear()
    assert engine._prefixes.kept_bytes == 0


def test_common() -> None:
    long = np.arange(100, dtype=np.int32)
    assert common(long, long) == 100
    assert common(long, long[:40]) == 40
    for at in (0, 3, 15, 16, 17, 99):
        other = long.copy()
        other[at] = -1
        assert common(long, other) == at
    assert common(long, long[:0]) == 0


def test_a_seed_says_the_same_after_whatever_came(engine: LlamaEngine) -> None:
    """Kept prompts and used cells do not show, however long the prompt is."""
    for text in ("Why?", "Why? " * 60):
        first = ask(engine, text, seed=5, temperature=1.1, max_tokens=20)
        for topic in ("rain " * 50, "wind " * 40, text):
            one(engine, topic, max_tokens=8)
            again = ask(engine, text, seed=5, temperature=1.1, max_tokens=20)
            assert text_of(again) == text_of(first)
