"""The states of a model, and which may follow which.

absent → pulling → cold → loading → warm → draining → cold; failed from anything but absent.
"""

from enum import StrEnum


class ModelState(StrEnum):
    """Where a model is between a name and an answer."""

    ABSENT = "absent"  # its file is not here
    PULLING = "pulling"  # its file is being fetched
    COLD = "cold"  # its file is here, nothing is loaded; it may wait for room
    LOADING = "loading"  # an engine is being started, or restarted after a crash
    WARM = "warm"  # calls are answered
    DRAINING = "draining"  # running calls end, new ones wait
    FAILED = "failed"  # it cannot be loaded, or crashed too often; a person must look


_NEXT = {
    ModelState.ABSENT: {ModelState.PULLING, ModelState.COLD},
    ModelState.PULLING: {ModelState.COLD, ModelState.ABSENT, ModelState.FAILED},
    ModelState.COLD: {ModelState.LOADING, ModelState.ABSENT, ModelState.FAILED},
    ModelState.LOADING: {ModelState.WARM, ModelState.FAILED, ModelState.COLD},
    ModelState.WARM: {ModelState.DRAINING, ModelState.LOADING, ModelState.FAILED},
    ModelState.DRAINING: {ModelState.COLD, ModelState.FAILED},
    ModelState.FAILED: {ModelState.LOADING, ModelState.COLD},
}


class IllegalMove(Exception):
    """A bug of the supervisor: one state cannot follow the other."""


def moved(old: ModelState, new: ModelState) -> ModelState:
    """``new``, if it may follow ``old``. Raises IllegalMove."""
    if new not in _NEXT[old]:
        raise IllegalMove(f"a model cannot go from {old} to {new}")
    return new
