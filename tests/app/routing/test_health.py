"""Circuits and measures, on a clock that is moved by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.routing.health import (
    FAILURES_TO_OPEN,
    OPEN_SECONDS_MAX,
    OPEN_SECONDS_MIN,
    WINDOW_CALLS_MIN,
    Health,
)
from tests.app.routing.world import HandClock

KEY = ("mock", "acme/tiny")


def test_it_opens_after_failures_in_a_row_and_one_call_tries_it_again() -> None:
    clock = HandClock()
    health = Health(clock)
    for _ in range(FAILURES_TO_OPEN - 1):
        health.failed(KEY)
    assert health.admit(KEY)
    health.failed(KEY)
    assert not health.admit(KEY)
    assert not health.closed(KEY)
    assert health.opens_in_s(KEY) == pytest.approx(OPEN_SECONDS_MIN)
    clock.pass_seconds(OPEN_SECONDS_MIN + 0.1)
    assert health.closed(KEY)  # a plan may count on it
    assert health.admit(KEY)  # the trial
    assert not health.admit(KEY)  # and nobody beside it
    assert not health.closed(KEY)
    health.succeeded(KEY)
    assert health.admit(KEY)
    assert health.healthy(KEY)


def test_asking_for_plans_changes_nothing() -> None:
    clock = HandClock()
    health = Health(clock)
    for _ in range(FAILURES_TO_OPEN):
        health.failed(KEY)
    clock.pass_seconds(OPEN_SECONDS_MIN + 0.1)
    assert [health.closed(KEY) for _ in range(5)] == [True] * 5


def test_a_success_starts_the_count_again() -> None:
    health = Health(HandClock())
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            health.failed(KEY)
        health.succeeded(KEY)
    assert health.admit(KEY)


def test_it_opens_when_over_half_of_twenty_calls_fail_though_never_five_in_a_row() -> None:
    health = Health(HandClock())
    for n in range(WINDOW_CALLS_MIN - 1):
        (health.succeeded if n % 5 in (1, 3) else health.failed)(KEY)
        assert health.healthy(KEY)
    health.failed(KEY)
    assert not health.healthy(KEY)


def test_half_or_less_does_not_open_it_and_old_calls_do_not_count() -> None:
    clock = HandClock()
    health = Health(clock)
    for _ in range(50):
        health.failed(KEY)
        health.succeeded(KEY)
    assert health.healthy(KEY)
    for _ in range(3):
        clock.pass_seconds(11)
        for _ in range(4):
            health.failed(KEY)
        health.succeeded(KEY)
    assert health.healthy(KEY)


def test_the_wait_doubles_with_each_failed_trial_up_to_a_minute() -> None:
    clock = HandClock()
    health = Health(clock)
    for _ in range(FAILURES_TO_OPEN):
        health.failed(KEY)
    waits = []
    for _ in range(6):
        waits.append(health.opens_in_s(KEY))
        clock.pass_seconds(waits[-1] + 0.01)
        assert health.admit(KEY)
        health.failed(KEY)
    assert waits == pytest.approx([5, 10, 20, 40, OPEN_SECONDS_MAX, OPEN_SECONDS_MAX], abs=0.1)


def test_a_trial_that_says_nothing_lets_the_next_one_through() -> None:
    clock = HandClock()
    health = Health(clock)
    for _ in range(FAILURES_TO_OPEN):
        health.failed(KEY)
    clock.pass_seconds(6)
    assert health.admit(KEY)
    health.undecided(KEY)
    assert health.admit(KEY)
    clock.pass_seconds(61)  # a trial that never reports is lost
    assert health.admit(KEY)


def test_a_retry_after_opens_at_once_for_no_longer_than_a_minute() -> None:
    clock = HandClock()
    health = Health(clock)
    health.failed(KEY, retry_after_s=30)
    clock.pass_seconds(29)
    assert not health.admit(KEY)
    clock.pass_seconds(2)
    assert health.admit(KEY)
    health.failed(("other", "acme/tiny"), retry_after_s=10**9)
    clock.pass_seconds(OPEN_SECONDS_MAX + 1)
    assert health.admit(("other", "acme/tiny"))


def test_means_follow_and_short_answers_move_them_less() -> None:
    health = Health(HandClock())
    assert health.figures(KEY) == (None, None)
    health.measured(KEY, 100, 50)
    assert health.figures(KEY) == (100, 50)
    health.measured(KEY, None, 500, tokens=2)
    short = health.speed(KEY)
    health.measured(KEY, None, 500, tokens=1000)
    assert 50 < short < 60 < health.speed(KEY) < 500


@given(st.lists(st.floats(0.1, 10_000), min_size=1, max_size=200), st.integers(1, 99))
def test_percentiles_are_those_of_the_last_samples(values: list[float], percent: int) -> None:
    health = Health(HandClock())
    for value in values:
        health.measured(KEY, value, value)
    last = sorted(values[-128:])
    first_ms = health.first_token_ms_at(KEY, percent)
    speed = health.speed_at(KEY, percent)
    assert first_ms is not None
    assert speed is not None
    assert sum(each <= first_ms for each in last) * 100 >= percent * len(last)
    assert sum(each >= speed for each in last) * 100 >= percent * len(last)
