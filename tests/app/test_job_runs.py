"""How late each periodic job is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.job_runs import JobRuns


@given(
    every_s=st.integers(1, 10_000),
    passed_s=st.integers(0, 100_000),
    after_s=st.integers(0, 100_000),
)
def test_late_is_what_goes_beyond_the_interval(every_s: int, passed_s: int, after_s: int) -> None:
    now = [5]
    runs = JobRuns(lambda: now[0] * 10**9)
    runs.expect("sweep", every_s)
    now[0] += passed_s
    (before,) = runs
    assert before.late_s == max(0, passed_s - every_s)
    runs.ran("sweep")
    now[0] += after_s
    (after,) = runs
    assert after.late_s == max(0, after_s - every_s)


async def test_what_it_raises_is_counted_and_goes_on() -> None:
    runs = JobRuns()

    async def failing() -> None:
        raise OSError("no room")

    run = runs.watched("backup", 60, failing)
    for times in (1, 2):
        with pytest.raises(OSError, match="no room"):
            await run()
        assert [each.failures for each in runs] == [times]
