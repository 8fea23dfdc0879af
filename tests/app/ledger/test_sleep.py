"""A machine that sleeps: its monotonic clock stands still, and that is no jump of it (I8)."""

import logging
import time

import pytest

from app.clock import slept_ns
from app.ledger.time import FORWARD_MS_MAX, LedgerClock
from tests.app.ledger.books import START_MS
from tests.app.ledger.two_clocks import DAY_MS, HOUR_MS, MINUTE_MS, TwoClocks


@pytest.fixture
def machine() -> TwoClocks:
    return TwoClocks()


@pytest.fixture
def laptop(machine: TwoClocks) -> LedgerClock:
    """A clock that is told how long the machine slept."""
    return LedgerClock(machine, machine.slept_ns)


@pytest.mark.parametrize("slept_ms", [MINUTE_MS, 8 * HOUR_MS, 100 * DAY_MS])
def test_a_machine_that_slept_is_no_jump(
    machine: TwoClocks, laptop: LedgerClock, slept_ms: int, caplog: pytest.LogCaptureFixture
) -> None:
    minutes(machine, laptop, 3)
    with caplog.at_level(logging.INFO):
        machine.sleeps(slept_ms)
        assert laptop.now_ms() == machine.wall_ms
    assert (laptop.suspended, laptop.state().lead_ms) == (False, 0)
    long = slept_ms > FORWARD_MS_MAX
    assert [record.levelname for record in caplog.records] == ["INFO"] * long
    minutes(machine, laptop, 3)
    assert (laptop.suspended, laptop.now_ms()) == (False, machine.wall_ms)


def test_a_hold_outlives_a_sleep(machine: TwoClocks, laptop: LedgerClock) -> None:
    """A call that waits for its provider when the lid is closed is not given up when it opens."""
    machine.sleeps(8 * HOUR_MS)
    machine.passes(MINUTE_MS)
    assert laptop.now_ms() == machine.wall_ms
    assert laptop.ages.now_ms() == START_MS + MINUTE_MS


def test_a_clock_that_jumped_while_the_machine_slept_is_in_doubt(
    machine: TwoClocks, laptop: LedgerClock
) -> None:
    machine.sleeps(8 * HOUR_MS)
    machine.steps(40 * DAY_MS)
    assert (laptop.now_ms(), laptop.suspended) == (START_MS, True)
    machine.steps(-40 * DAY_MS)
    minutes(machine, laptop, 1)
    assert (laptop.now_ms(), laptop.suspended) == (machine.wall_ms, False)


def test_a_jump_long_after_a_sleep_is_a_jump(machine: TwoClocks, laptop: LedgerClock) -> None:
    """One sleep excuses one step of its own length, once."""
    machine.sleeps(8 * HOUR_MS)
    laptop.now_ms()
    machine.steps(8 * HOUR_MS)
    laptop.now_ms()
    assert laptop.suspended
    laptop.confirm()
    machine.sleeps(HOUR_MS // 2)  # short enough not to be looked at
    minutes(machine, laptop, 2)
    machine.steps(HOUR_MS + HOUR_MS // 2)
    laptop.now_ms()
    assert laptop.suspended


def test_what_the_system_says_of_sleep_only_grows() -> None:
    before = slept_ns()
    assert slept_ns() - before < 1_000_000_000
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert slept_ns() > -1_000_000_000


def minutes(machine: TwoClocks, clock: LedgerClock, count: int) -> None:
    for _ in range(count):
        machine.passes(MINUTE_MS)
        clock.tick()
