"""Ledger time (I8): never back, and in doubt after a jump until it is confirmed."""

import logging
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.clock import EARLIEST_MS, SystemClock
from app.ledger.time import (
    AGES_MS,
    BACK_MS_MAX,
    FORWARD_MS_MAX,
    LEAD_WORKED_OFF,
    LedgerClock,
    keep_mark,
    open_clock,
)
from tests.app.ledger.books import START_MS, opened
from tests.app.ledger.two_clocks import DAY_MS, HOUR_MS, MINUTE_MS, TwoClocks


@pytest.fixture
def machine() -> TwoClocks:
    return TwoClocks()


@pytest.fixture
def clock(machine: TwoClocks) -> LedgerClock:
    return LedgerClock(machine)


def minutes(machine: TwoClocks, clock: LedgerClock, count: int) -> None:
    for _ in range(count):
        machine.passes(MINUTE_MS)
        clock.tick()


def test_it_is_the_machines_time_while_that_is_plausible(
    machine: TwoClocks, clock: LedgerClock
) -> None:
    for _ in range(3):
        minutes(machine, clock, 60)
        assert clock.now_ms() == machine.wall_ms
    machine.steps(FORWARD_MS_MAX)
    assert (clock.now_ms(), clock.suspended) == (machine.wall_ms, False)


def test_a_small_step_back_stops_it_until_the_clock_has_come_after(
    machine: TwoClocks, clock: LedgerClock
) -> None:
    machine.steps(-BACK_MS_MAX)
    assert (clock.now_ms(), clock.suspended) == (START_MS, False)
    machine.passes(BACK_MS_MAX + 7)
    assert clock.now_ms() == START_MS + 7


@pytest.mark.parametrize("drift_ms", [-1_000, 1_000, 30_000])
def test_a_clock_that_drifts_is_followed(
    machine: TwoClocks, clock: LedgerClock, drift_ms: int
) -> None:
    """A second a minute is a terrible clock, and no jump, however long it goes on."""
    for _ in range(600):
        machine.steps(drift_ms)
        minutes(machine, clock, 1)
        assert (clock.suspended, clock.now_ms()) == (False, machine.wall_ms)


@pytest.mark.parametrize("step_ms", [-BACK_MS_MAX - 1, -HOUR_MS, FORWARD_MS_MAX + 1, 40 * DAY_MS])
def test_a_jump_is_in_doubt_and_time_goes_on_without_it(
    machine: TwoClocks, clock: LedgerClock, step_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    machine.steps(step_ms)
    assert clock.now_ms() == START_MS
    assert clock.suspended
    machine.passes(90_000)
    assert clock.now_ms() == START_MS + 90_000
    state = clock.state()
    assert (state.suspended, state.step_ms, state.suspended_since_ms) == (True, step_ms, START_MS)
    assert state.clock_ms == machine.wall_ms
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "turnpike clock confirm" in record.getMessage()
    assert ("earlier" if step_ms < 0 else "later") in record.getMessage()


def test_two_ticks_confirm_a_jump_ahead(machine: TwoClocks, clock: LedgerClock) -> None:
    machine.steps(40 * DAY_MS)
    clock.now_ms()
    minutes(machine, clock, 1)
    assert (clock.suspended, clock.now_ms()) == (True, START_MS + MINUTE_MS)
    minutes(machine, clock, 1)
    assert (clock.suspended, clock.now_ms()) == (False, machine.wall_ms)


def test_two_ticks_confirm_a_step_back_and_time_still_does_not_go_back(
    machine: TwoClocks, clock: LedgerClock
) -> None:
    machine.steps(-HOUR_MS)
    clock.now_ms()
    minutes(machine, clock, 2)
    assert not clock.suspended
    assert clock.now_ms() == machine.wall_ms + HOUR_MS
    assert clock.state().lead_ms == HOUR_MS
    machine.passes(30_000)
    assert clock.now_ms() == machine.wall_ms + HOUR_MS, "it goes on at the usual pace"


def test_a_lead_is_worked_off(machine: TwoClocks, clock: LedgerClock) -> None:
    machine.steps(-HOUR_MS)
    clock.confirm()
    before_ms = clock.now_ms()
    for passed in range(1, 60 * LEAD_WORKED_OFF + 60):
        minutes(machine, clock, 1)
        now_ms = clock.now_ms()
        slower_ms = min(HOUR_MS, passed * MINUTE_MS // LEAD_WORKED_OFF)
        assert now_ms >= before_ms
        assert now_ms == machine.wall_ms + HOUR_MS - slower_ms
        before_ms = now_ms
    assert clock.now_ms() == machine.wall_ms


def test_ticks_that_come_together_count_once(machine: TwoClocks, clock: LedgerClock) -> None:
    machine.steps(40 * DAY_MS)
    for _ in range(10):
        clock.tick()
        machine.passes(100)
    assert clock.suspended
    minutes(machine, clock, 1)
    clock.tick()
    assert clock.suspended
    minutes(machine, clock, 1)
    assert not clock.suspended


def test_a_clock_that_keeps_jumping_stays_in_doubt(machine: TwoClocks, clock: LedgerClock) -> None:
    for count in range(1, 20):
        machine.steps((-1) ** count * count * DAY_MS)
        minutes(machine, clock, 1)
        assert (clock.suspended, clock.now_ms()) == (True, START_MS + count * MINUTE_MS)
    minutes(machine, clock, 2)
    assert not clock.suspended


def test_a_clock_that_is_set_right_again_needs_no_confirmation(
    machine: TwoClocks, clock: LedgerClock, caplog: pytest.LogCaptureFixture
) -> None:
    machine.steps(40 * DAY_MS)
    minutes(machine, clock, 1)
    machine.steps(-40 * DAY_MS)
    minutes(machine, clock, 1)
    assert (clock.suspended, clock.now_ms()) == (False, START_MS + 2 * MINUTE_MS)
    assert clock.state().lead_ms == 0
    assert "back where it was expected" in caplog.messages[-1]


def test_the_operator_confirms_at_once(machine: TwoClocks, clock: LedgerClock) -> None:
    machine.steps(40 * DAY_MS)
    assert clock.state().suspended
    state = clock.confirm()
    assert (state.suspended, state.ledger_ms, state.advice) == (False, machine.wall_ms, "")


def test_a_confirmation_without_a_doubt_changes_nothing(
    machine: TwoClocks, clock: LedgerClock
) -> None:
    machine.passes(10)
    machine.steps(-3_000)
    before = clock.state()
    assert clock.confirm() == before


def test_ages_do_without_a_jump_for_as_long_as_a_hold_lives(
    machine: TwoClocks, clock: LedgerClock
) -> None:
    machine.steps(40 * DAY_MS)
    clock.confirm()
    for step_ms in (0, 40 * DAY_MS):
        machine.steps(step_ms)
        clock.confirm()
        machine.passes(MINUTE_MS)
    assert clock.now_ms() == START_MS + 80 * DAY_MS + 2 * MINUTE_MS
    assert clock.ages.now_ms() == START_MS + 2 * MINUTE_MS
    machine.passes(AGES_MS)
    assert clock.ages.now_ms() == clock.now_ms() == machine.wall_ms
    assert clock.ages.suspended is False


def test_a_stall_between_two_looks_is_no_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was stopped after it had read one clock, before it read the other."""

    class Stalling(TwoClocks):
        stall_ms = 0

        def now_ms(self) -> int:
            found = self.wall_ms
            self.passes(self.stall_ms)
            self.stall_ms = 0
            return found

    machine = Stalling()
    clock = LedgerClock(machine)
    machine.stall_ms = 8 * HOUR_MS
    clock.now_ms()
    assert not clock.suspended
    assert clock.now_ms() == START_MS + 8 * HOUR_MS


# What a machine's clock can do between two looks.
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("sleeps"), st.integers(0, 30 * DAY_MS)),
        st.tuples(st.just("passes"), st.integers(0, 3 * HOUR_MS)),
        st.tuples(st.just("steps"), st.integers(-400 * DAY_MS, 400 * DAY_MS)),
        st.tuples(st.just("steps"), st.integers(-6_000, 6_000)),
        st.tuples(st.just("tick"), st.just(0)),
        st.tuples(st.just("confirm"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=400, deadline=None)
@given(MOVES)
def test_it_never_goes_back_and_in_doubt_goes_by_what_passes(moves: list[tuple[str, int]]) -> None:
    machine = TwoClocks()
    clock = LedgerClock(machine, machine.slept_ns)
    last_ms, last_age_ms = clock.now_ms(), clock.ages.now_ms()
    for move, ms in moves:
        was_in_doubt, passed_ms = clock.suspended, machine.passed_ms
        getattr(machine if move in {"passes", "sleeps", "steps"} else clock, move)(
            *[ms][: move[-1] == "s"]
        )
        now_ms, age_ms = clock.now_ms(), clock.ages.now_ms()
        assert now_ms >= last_ms
        assert now_ms >= machine.wall_ms or clock.suspended
        if was_in_doubt and clock.suspended:
            assert now_ms - last_ms == machine.passed_ms - passed_ms
        assert age_ms <= now_ms
        assert age_ms - last_age_ms >= min(0, machine.passed_ms - passed_ms)
        last_ms, last_age_ms = now_ms, age_ms


def test_threads_never_see_it_go_back() -> None:
    class Trembling(SystemClock):
        """A time of day that shakes by a few milliseconds."""

        shaken = 0

        def now_ms(self) -> int:
            self.shaken = (self.shaken * 1_103_515_245 + 12_345) % 2**31
            return super().now_ms() + self.shaken % 9

    clock = LedgerClock(Trembling())
    highest = [0]
    lock = threading.Lock()
    back: list[int] = []

    def ask() -> None:
        for _ in range(3_000):
            with lock:
                floor_ms = highest[0]
            now_ms = clock.now_ms()
            if now_ms < floor_ms:
                back.append(now_ms - floor_ms)
            with lock:
                highest[0] = max(highest[0], now_ms)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert back == []


# Between two runs of the server.


async def test_the_mark_is_kept_and_found_again(tmp_path: Path) -> None:
    machine = TwoClocks()
    clock = LedgerClock(machine)
    async with opened(tmp_path / "ledger.db") as books:
        machine.passes(HOUR_MS)
        await keep_mark(clock, books.database)
        machine.steps(-3_000)
        await keep_mark(LedgerClock(machine), books.database)
        assert await books.rows("SELECT high_ms FROM ledger_clock") == [(START_MS + HOUR_MS,)]
    machine.steps(-DAY_MS)
    later = LedgerClock(machine)
    async with opened(tmp_path / "ledger.db") as books:
        await open_clock(later, books.database)
    assert (later.suspended, later.now_ms()) == (True, START_MS + HOUR_MS)


async def test_an_entry_after_the_mark_counts_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "ledger.db") as books:
        books.clock.ms = START_MS + 59_000
        await books.ledger.balance("user_ann")
        assert await books.rows("SELECT count(*) FROM entries") == [(1,)]
        clock = LedgerClock(TwoClocks())
        await open_clock(clock, books.database)
        assert (clock.suspended, clock.now_ms()) == (True, START_MS + 59_000)


def test_a_clock_behind_the_mark_is_in_doubt_from_the_start(
    machine: TwoClocks, caplog: pytest.LogCaptureFixture
) -> None:
    machine.wall_ms = 1_000  # a dead battery: 1970
    clock = LedgerClock(machine)
    clock.start_from(START_MS)
    assert (clock.suspended, clock.now_ms()) == (True, START_MS)
    assert "1970-01-01T00:00:01Z" in caplog.text
    machine.passes(MINUTE_MS)
    machine.wall_ms = START_MS + 3 * HOUR_MS  # the network says what time it is
    clock.tick()
    assert (clock.suspended, clock.now_ms()) == (True, START_MS + MINUTE_MS)
    minutes(machine, clock, 2)
    assert (clock.suspended, clock.now_ms()) == (False, machine.wall_ms)


async def test_the_very_first_start_in_1970_begins_no_month_of_1970(
    tmp_path: Path, machine: TwoClocks, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine without a battery for its clock, before any time server has answered."""
    machine.wall_ms = 90_000
    clock = LedgerClock(machine)
    async with opened(tmp_path / "ledger.db") as books:
        await books.database.write(lambda unit: unit.execute("UPDATE ledger_clock SET high_ms = 0"))
        await open_clock(clock, books.database)
    assert (clock.suspended, clock.now_ms()) == (True, EARLIEST_MS)
    assert "than this program was written" in caplog.text and "1970-01-01" in caplog.text
    machine.passes(MINUTE_MS)
    machine.wall_ms = START_MS
    clock.tick()
    minutes(machine, clock, 2)
    assert (clock.suspended, clock.now_ms()) == (False, machine.wall_ms)


def test_a_clock_a_little_behind_the_mark_waits_for_it(machine: TwoClocks) -> None:
    clock = LedgerClock(machine)
    clock.start_from(START_MS + BACK_MS_MAX)
    assert (clock.suspended, clock.now_ms()) == (False, START_MS + BACK_MS_MAX)
    machine.passes(BACK_MS_MAX + 1)
    assert clock.now_ms() == START_MS + BACK_MS_MAX + 1


@pytest.mark.parametrize("off_ms", [1, 2 * HOUR_MS, 800 * DAY_MS])
def test_a_machine_that_was_off_is_normal(
    machine: TwoClocks, off_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = LedgerClock(machine)
    with caplog.at_level(logging.INFO):
        clock.start_from(START_MS - off_ms)
    assert (clock.suspended, clock.now_ms()) == (False, START_MS)
    assert [record.levelname for record in caplog.records] == (["INFO"] if off_ms > 1 else [])
