"""Who is in memory: by example, and by law over random lives."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from local_runtime.lifecycle.residency import TURN_S_MAX, Residency, Want


def want(model: str, size: int, **fields: object) -> Want:
    return Want(model=model, bytes=size, **fields)  # type: ignore[arg-type]


def resident(memory: Residency, model: str, size: int, now_s: float, **fields: object) -> None:
    """Have it loaded at ``now_s``, which takes no time."""
    memory.want(want(model, size, **fields))
    assert memory.plan(now_s).granted == [model]
    memory.warm(model, 0, 0.0, now_s)


def test_room_that_is_there_is_given_at_once() -> None:
    memory = Residency(100)
    memory.want(want("a", 60))
    memory.want(want("b", 40))
    assert memory.plan(0).granted == ["a", "b"]
    assert memory.held_bytes == 100


def test_the_least_recently_used_leaves_and_only_who_is_needed() -> None:
    memory = Residency(100)
    for at_s, (model, size) in enumerate([("old", 10), ("big", 50), ("new", 40)]):
        resident(memory, model, size, at_s)
    memory.want(want("a", 45))
    # "old" alone is not enough, and with "big" it is not needed.
    assert memory.plan(1000).leave == ["big"]
    memory.give_back("big")
    assert memory.plan(1000).granted == ["a"]


def test_by_bytes_and_not_by_count() -> None:
    """llama.cpp PR 25326: a big model stayed and a small one was refused."""
    memory = Residency(100)
    resident(memory, "big", 100, 0)
    memory.want(want("small", 29))
    assert memory.plan(1000).leave == ["big"]


def test_a_live_stream_is_let_end() -> None:
    memory = Residency(100)
    resident(memory, "a", 80, 0)
    memory.enter("a", 1)
    memory.want(want("b", 80))
    plan = memory.plan(1000)
    assert plan.leave == ["a"]  # it takes no new calls
    assert plan.granted == []
    assert memory.plan(2000).granted == []
    memory.leave("a", 2000)
    assert memory.plan(2000).granted == []  # not before it is gone
    memory.give_back("a")
    assert memory.plan(2000).granted == ["b"]


def test_an_idle_one_is_preferred_to_a_busy_one() -> None:
    memory = Residency(100)
    resident(memory, "busy", 50, 0)
    resident(memory, "idle", 50, 1)
    memory.enter("busy", 2)
    memory.want(want("a", 50))
    assert memory.plan(1000).leave == ["idle"]


def test_a_turn_is_long_enough_to_be_worth_the_load() -> None:
    memory = Residency(100)
    memory.want(want("a", 80))
    memory.plan(0)
    memory.warm("a", 0, 2.0, 10)
    memory.enter("a", 10)
    memory.want(want("b", 80))
    plan = memory.plan(11)
    assert (plan.leave, plan.again_s) == ([], 18)  # four times as long as it took to load
    assert memory.plan(18).leave == ["a"]


def test_a_turn_ends_early_when_nobody_comes() -> None:
    memory = Residency(100)
    memory.want(want("a", 80))
    memory.plan(0)
    memory.warm("a", 0, 2.0, 10)
    memory.enter("a", 10)
    memory.leave("a", 11)
    memory.want(want("b", 80))
    assert memory.plan(12).again_s == 13  # idle for as long as loading it again would take
    assert memory.plan(13).leave == ["a"]


def test_kept_models_stay_and_others_hear_why_they_cannot_come() -> None:
    memory = Residency(100)
    resident(memory, "mine", 60, 0, kept=True, keep_alive_s=1.0)
    memory.want(want("a", 50))
    plan = memory.plan(1000)
    assert plan.leave == []
    assert "needs 50 bytes" in plan.hopeless["a"]
    assert "may have 100" in plan.hopeless["a"]
    assert "60 are taken by models that are kept" in plan.hopeless["a"]
    assert not memory.wants


def test_what_never_fits() -> None:
    memory = Residency(100)
    resident(memory, "a", 60, 0)
    memory.want(want("b", 101))
    plan = memory.plan(1000)
    assert plan.leave == []  # nobody leaves in vain
    assert "101" in plan.hopeless["b"]


def test_preloading_displaces_nobody() -> None:
    memory = Residency(100)
    for model in "abc":
        memory.want(want(model, 40, may_displace=False))
    plan = memory.plan(0)
    assert (plan.granted, plan.skipped) == (["a", "b"], ["c"])


def test_who_asked_first_is_not_overtaken_by_who_needs_less() -> None:
    memory = Residency(100)
    resident(memory, "a", 60, 0)
    memory.enter("a", 0)
    memory.want(want("big", 90))
    assert memory.plan(1000).leave == ["a"]
    memory.want(want("tiny", 10))
    assert memory.plan(1000).granted == ["tiny"]  # big will have its 90 all the same
    memory.want(want("small", 30))
    assert memory.plan(1000).granted == []  # 30 are free, and big needs them


def test_one_that_turns_out_larger_makes_idle_ones_leave() -> None:
    memory = Residency(100)
    resident(memory, "a", 50, 0)
    memory.want(want("b", 50))
    memory.plan(1)
    memory.warm("b", 70, 1.0, 2)
    assert memory.plan(1000).leave == ["a"]


def test_unused_models_are_unloaded_after_their_time() -> None:
    memory = Residency(100)
    resident(memory, "a", 10, 0, keep_alive_s=60.0)
    resident(memory, "b", 10, 0)
    memory.enter("a", 50)
    assert memory.plan(100).leave == []
    memory.leave("a", 100)
    assert memory.plan(100).again_s == 160
    assert memory.plan(160).leave == ["a"]


def test_memory_that_others_took_is_not_given() -> None:
    memory = Residency(100)
    memory.want(want("a", 60))
    plan = memory.plan(0, available_bytes=50)
    assert plan.granted == []
    assert plan.again_s is not None
    assert memory.plan(1, available_bytes=70).granted == ["a"]
    memory.want(want("b", 20))
    assert memory.plan(2, available_bytes=70).granted == []  # the first is not in it yet


MODELS = ["a", "b", "c", "d", "e"]
BUDGET = 100


class Lives(RuleBasedStateMachine):
    """Models that come and go as calls ask for them; every law of residency.py holds throughout."""

    @initialize(sizes=st.lists(st.integers(1, BUDGET), min_size=5, max_size=5))
    def begin(self, sizes: list[int]) -> None:
        self.memory = Residency(BUDGET)
        self.sizes = dict(zip(MODELS, sizes, strict=True))
        self.now_s = 0.0
        self.calls = dict.fromkeys(MODELS, 0)
        self.waiting: dict[str, float] = {}
        self.draining: set[str] = set()

    def plan(self) -> None:
        queue = list(self.memory.wants)
        before = self.memory.held_bytes
        plan = self.memory.plan(self.now_s)
        assert not plan.hopeless  # each would fit alone
        granted = sum(self.memory.residents[model].bytes for model in plan.granted)
        if plan.granted:
            assert before + granted <= BUDGET
        for model in plan.granted:
            del self.waiting[model]
            passed = queue[: queue.index(model)]
            still = [each for each in passed if each in self.memory.wants]
            coming = sum(e.bytes for e in self.memory.residents.values() if e.leaving)
            free = BUDGET - self.memory.held_bytes
            assert sum(self.memory.wants[each].bytes for each in still) <= free + coming
        for model in plan.leave:
            resident = self.memory.residents[model]
            assert resident.warm_since_s is not None
            assert resident.ripe_s <= self.now_s
            assert model not in self.draining
            self.draining.add(model)
        self.again_s = plan.again_s
        self.gone()

    def gone(self) -> None:
        """Those who were told to leave go once no call runs on them."""
        for model in [each for each in self.draining if not self.calls[each]]:
            self.draining.discard(model)
            self.memory.give_back(model)
            self.plan()

    def is_open(self, model: str) -> bool:
        resident = self.memory.residents.get(model)
        return resident is not None and resident.warm_since_s is not None and not resident.leaving

    @rule(model=st.sampled_from(MODELS))
    def call(self, model: str) -> None:
        if self.is_open(model):
            self.memory.enter(model, self.now_s)
            self.calls[model] += 1
        elif model not in self.memory.residents and model not in self.waiting:
            self.waiting[model] = self.now_s
            self.memory.want(want(model, self.sizes[model]))
        self.plan()

    @precondition(lambda self: any(self.calls.values()))
    @rule(data=st.data())
    def a_call_ends(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from([each for each in MODELS if self.calls[each]]))
        self.calls[model] -= 1
        self.memory.leave(model, self.now_s)
        self.gone()
        self.plan()

    @rule(load_s=st.floats(0, 10))
    def loaded(self, load_s: float) -> None:
        for model, resident in self.memory.residents.items():
            if resident.warm_since_s is None:
                self.memory.warm(model, 0, load_s, self.now_s)
                break
        self.plan()

    @rule(seconds=st.floats(0.01, 20))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds
        self.plan()

    @rule(model=st.sampled_from(MODELS))
    def gives_up_waiting(self, model: str) -> None:
        if self.waiting.pop(model, None) is not None:
            self.memory.give_back(model)
            self.plan()

    @invariant()
    def never_above_the_budget(self) -> None:
        if hasattr(self, "memory"):
            assert self.memory.held_bytes <= BUDGET

    @invariant()
    def a_model_with_calls_is_in_memory(self) -> None:
        if hasattr(self, "memory"):
            for model, calls in self.calls.items():
                resident = self.memory.residents.get(model)
                assert not calls or (resident is not None and resident.running == calls)

    def teardown(self) -> None:
        """Nobody starves: when running calls end, all who wait are served, whoever else calls."""
        if not hasattr(self, "memory"):
            return
        waited_for = list(self.waiting)
        limit_s = self.now_s + (2 * TURN_S_MAX + 1) * len(MODELS)
        while any(model in self.waiting for model in waited_for):
            assert self.now_s < limit_s, f"{self.waiting} starve"
            for model in [each for each in MODELS if self.calls[each]]:
                self.calls[model] -= 1
                self.memory.leave(model, self.now_s)
            self.gone()
            self.loaded(7.5)
            for model in MODELS:  # a rival for everything, all the time
                if self.is_open(model):
                    self.call(model)
            self.now_s += 1.0
            self.plan()


Lives.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase
