"""When the cache is divided, and when it is not."""

from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.llama.layout import ROOM_MIN, Layout, Need

CELLS = 8192
SECOND = 1_000_000_000


def layout(**changed: float) -> Layout:
    found = {"cells": CELLS, "sequences_max": 16, "cell_bytes": 1, "bytes_max": CELLS, **changed}
    scan_ns = found.pop("scan_ns", 500.0)
    return Layout(scan_ns=scan_ns, **{name: int(value) for name, value in found.items()})


def needs(*lengths: int, growth: int = 0) -> list[Need]:
    return [Need(length, length + growth) for length in lengths]


lengths = st.lists(st.integers(1, 5000), min_size=1, max_size=16)


@given(lengths, st.integers(0, 300))
def test_the_best_holds_and_is_for_the_most(found: list[int], growth: int) -> None:
    one = layout()
    all_needs = needs(*found, growth=growth)
    streams = one.best(all_needs)
    assert streams in {1, 2, 4, 8, 16}
    one.changed(streams, 0, 0)
    assert one.holds(all_needs)
    if streams > 1:
        assert len(found) <= streams
        assert max(found) + growth <= one.room(streams)
        assert one.room(streams) * streams <= CELLS
    for more in (2, 4, 8, 16):
        if more > streams and more >= len(found) and sum(found) + growth * len(found) <= CELLS:
            assert max(found) + growth > one.room(more)


@given(lengths, st.sampled_from([2, 4, 8, 16]))
def test_what_has_slack_holds_so_much_longer(found: list[int], streams: int) -> None:
    one = layout()
    one.changed(streams, 0, 0)
    slack = one.slack(needs(*found))
    assert slack >= 0
    if one.holds(needs(*found)):
        assert one.holds(needs(*[length + slack for length in found]))
        assert not one.holds(needs(*[length + slack + 1 for length in found]))


CHANGE_NS = 200_000_000


def measured(scan_ns: float = 500.0) -> Layout:
    """One that knows what a change costs here."""
    one = layout(scan_ns=scan_ns)
    one.changed(1, CHANGE_NS, 0)
    return one


def test_many_short_ones_get_a_cache_each() -> None:
    assert measured().better(needs(*[100] * 16, growth=128), 1600, 0) == 16


def test_a_change_must_pay() -> None:
    one = measured()
    assert one.better(needs(100, 100, growth=128), 200, 0) is None
    assert one.better(needs(*[20] * 4, growth=30), 80, 0) is None
    assert one.better(needs(*[100] * 16, growth=4), 1600, 0) is None
    one.changed(1, 100 * CHANGE_NS, 0)
    assert one.better(needs(*[100] * 16, growth=128), 1600, 0) is None


def test_before_the_first_change_its_cost_is_estimated() -> None:
    assert layout(cell_bytes=20_000, bytes_max=1e9).better(needs(*[99] * 16, growth=99), 1600, 0)
    large = layout(cell_bytes=20_000_000, bytes_max=1e12)
    assert large.better(needs(*[99] * 16, growth=99), 1600, 0) is None


def test_what_is_shared_is_looked_at_once() -> None:
    one = measured()
    assert one.better(needs(*[400] * 8, growth=100), 8 * 400, 0) == 16
    assert one.better(needs(*[400] * 8, growth=100), 400 + 8 * 10, 0) is None


def test_no_copy_is_larger_than_its_bound() -> None:
    one = layout(bytes_max=1000)
    assert one.best(needs(*[60] * 16)) == 16
    assert one.best(needs(*[70] * 16)) == 1


def test_a_cache_that_cannot_be_divided_is_not() -> None:
    one = layout(scan_ns=0.0)
    assert one.best(needs(10, 10, 10)) == 1
    assert layout(cells=ROOM_MIN).best(needs(10, 10)) == 1


def test_changes_to_and_fro_get_rare() -> None:
    """Somebody's long prompt comes every second, right after the cache has been divided."""
    one = layout()
    short = needs(*[100] * 16, growth=128)
    changes = 0
    for second in range(600):
        if one.better(short, 1600, second * SECOND) is not None:
            changes += 1
            one.changed(16, CHANGE_NS, second * SECOND)
            one.changed(1, CHANGE_NS, second * SECOND + SECOND // 2)
    assert 5 <= changes <= 12


def test_after_a_long_stay_it_is_divided_again_soon() -> None:
    one = layout()
    short = needs(*[100] * 16, growth=128)
    for minute in range(10):
        now_ns = minute * 60 * SECOND
        assert one.better(short, 1600, now_ns) == 16
        one.changed(16, CHANGE_NS, now_ns)
        one.changed(1, CHANGE_NS, now_ns + 30 * SECOND)
        assert one.better(short, 1600, now_ns + 30 * SECOND) is None
