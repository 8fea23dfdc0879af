"""Promise (B7, in short): after load with faults and clients that leave, everything is given back,
and the ledger says to the nano what the providers' own books say. ``make soak`` is the long run."""

import sys
from pathlib import Path

import pytest

from tests.soak.crowd import Shares
from tests.soak.run import Plan, soak
from tests.soak.watch import Sample, slope_per_min


def samples(sizes: list[float]) -> list[Sample]:
    """One a minute, with these sizes of memory."""
    return [Sample(60.0 * at, size, 0, 0, 0, 0, 0, 0, 0, 0) for at, size in enumerate(sizes)]


def test_a_leak_is_told_from_a_burst() -> None:
    assert slope_per_min(samples([100, 102, 104, 106, 108])) == pytest.approx(2.0)
    assert slope_per_min(samples([100, 100, 100, 130, 100])) == 0.0
    assert slope_per_min(samples([100, 132, 104, 136, 108])) == pytest.approx(2.0, abs=0.5)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
async def test_what_was_taken_is_given_back_and_the_books_are_equal(tmp_path: Path) -> None:
    plan = Plan(
        minutes=0.4,
        rate=30.0,
        program="tests.journeys.hurried",
        shares=Shares(faults=0.1, leavers=0.1, local=0.01),
        warm_up_s=4.0,
        fill_calls=0,
    )
    outcome = await soak(tmp_path, plan, print)
    assert outcome.wrong == []
    told = outcome.told
    assert min(told["charged_calls"].values()) > 5, "somebody sold next to nothing"
    assert told["kinds_of_faults_met"] >= 15
    assert told["heard"]["left"] > 20
