"""States of a model, and the schedule of restarts."""

import pytest

from local_runtime.lifecycle.restarts import Restarts
from local_runtime.lifecycle.states import IllegalMove, ModelState, moved


def test_a_life() -> None:
    state = ModelState.ABSENT
    for name in ("pulling", "cold", "loading", "warm", "draining", "cold", "loading", "failed"):
        state = moved(state, ModelState(name))
    assert state is ModelState.FAILED


@pytest.mark.parametrize(
    ("old", "new"),
    [("cold", "warm"), ("warm", "cold"), ("absent", "loading"), ("draining", "warm")],
)
def test_moves_that_make_no_sense(old: str, new: str) -> None:
    with pytest.raises(IllegalMove):
        moved(ModelState(old), ModelState(new))


def test_three_crashes_in_five_minutes_are_the_last() -> None:
    restarts = Restarts()
    assert restarts.crashed(0) == 0
    assert restarts.crashed(100) == 2
    assert restarts.crashed(299) is None
    assert restarts.total == 3


def test_rare_crashes_are_put_up_with() -> None:
    restarts = Restarts()
    delays = [restarts.crashed(at_s) for at_s in range(0, 2000, 200)]
    assert delays == [0, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_five_quiet_minutes_start_anew() -> None:
    restarts = Restarts()
    assert [restarts.crashed(at_s) for at_s in (0, 1, 400)] == [0, 2, 0]


def test_forgiveness() -> None:
    restarts = Restarts()
    assert [restarts.crashed(at_s) for at_s in (0, 1, 2)] == [0, 2, None]
    restarts.forgive()
    assert restarts.crashed(3) == 0
