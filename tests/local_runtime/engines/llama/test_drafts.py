"""Guesses from what is there, and how many of them are worth computing."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.cost import Forecast
from local_runtime.engines.llama.drafts import DRAFT_TOKENS_MAX, LEVELS, Lookup, Record, level_of
from local_runtime.engines.llama.speculation import StepCosts, worth

TOKENS = st.lists(st.integers(0, 5), max_size=60)


def lookup_of(tokens: list[int]) -> Lookup:
    lookup = Lookup(tokens, Record())
    lookup.follow()
    return lookup


def test_what_followed_before_is_guessed_again() -> None:
    lookup = lookup_of([1, 2, 3, 4, 5, 6, 7, 9, 1, 2, 3])
    guessed, likely = lookup.guesses(4)
    assert guessed == [4, 5, 6, 7]
    assert all(0 < after <= before < 1 for before, after in pairwise(likely))


def test_the_latest_place_counts() -> None:
    assert lookup_of([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3]).guesses(1)[0] == [5]


def test_a_loop_is_guessed_on_beyond_its_end() -> None:
    assert lookup_of([9, 1, 2, 1, 2, 1, 2]).guesses(6)[0] == [1, 2, 1, 2, 1, 2]


def test_nothing_is_guessed_from_nothing() -> None:
    assert lookup_of([]).guesses(5) == ([], [])
    assert lookup_of([1, 2, 3, 4, 5, 6]).guesses(5) == ([], [])


def test_pictures_are_not_guessed() -> None:
    assert lookup_of([1, 2, 3, -7, -7, 1, 2, 3]).guesses(5)[0] == []


@given(TOKENS, TOKENS, st.integers(0, DRAFT_TOKENS_MAX))
def test_told_bit_by_bit_or_at_once(start: list[int], rest: list[int], count: int) -> None:
    """Guesses are tokens of the past, and never more than asked for."""
    tokens = list(start)
    lookup = lookup_of(tokens)
    for token in rest:
        tokens.append(token)
        lookup.follow()
        guessed, likely = lookup.guesses(count)
        assert len(guessed) == len(likely) <= count
        assert set(guessed) <= set(tokens)
        if guessed:
            place = lookup._place
            assert place is not None and tokens[place] == guessed[0]


def test_right_guesses_raise_the_hopes_and_wrong_ones_lower_them() -> None:
    """Without any guess having been computed."""
    steady, hopes = [1, 2, 3, 4] * 4, []
    lookup = lookup_of(steady)
    for token in [1, 2, 3, 4] * 6:
        hopes.append(lookup.guesses(1)[1][0])
        steady.append(token)
        lookup.follow()
    assert hopes[-1] > 0.9 > hopes[0]
    record = Record()
    for _ in range(40):
        record.note(0, right=False)
    assert record.share(0) < 0.05
    assert record.share(level_of(1)) > 0.5
    child = Record(record)
    assert child.share(0) == record.share(0)


def test_levels_rise_with_the_streak() -> None:
    levels = [level_of(streak) for streak in range(1, 40)]
    assert levels == sorted(levels)
    assert levels[-1] == LEVELS - 1


def costs_of(first_ns: int, more_ns: int) -> StepCosts:
    costs = StepCosts(Forecast(more_ns, first_ns))
    for tokens in range(1, 65):
        for _ in range(5):
            costs.observe(tokens, first_ns + more_ns * (tokens - 1))
    return costs


def test_cheap_tokens_are_worth_guessing_and_dear_ones_are_not() -> None:
    sure = [0.95**n for n in range(1, 9)]
    assert worth([sure], 1, 100, costs_of(10_000_000, 100_000)) == [8]
    assert worth([sure], 1, 100, costs_of(10_000_000, 10_000_000)) == [0]
    unsure = [0.2**n for n in range(1, 9)]
    assert worth([unsure], 1, 100, costs_of(10_000_000, 5_000_000)) == [0]


def test_many_streams_stop_it() -> None:
    """A full batch costs by the token; one more that may be wrong only slows everybody down."""
    sure = [0.9**n for n in range(1, 9)]
    costs = costs_of(10_000_000, 6_000_000)
    assert sum(worth([sure], 1, 100, costs)) > 0
    assert sum(worth([sure] * 16, 16, 100, costs)) == 0


def test_no_more_than_there_is_room_for() -> None:
    sure = [0.99**n for n in range(1, 9)]
    cheap = costs_of(10_000_000, 1_000)
    assert worth([sure, sure], 2, 3, cheap) in ([2, 1], [1, 2])
    assert worth([sure], 1, 0, cheap) == [0]
    assert worth([sure], 1, -5, cheap) == [0]
    assert worth([], 3, 10, cheap) == []


@given(
    st.lists(st.lists(st.floats(0, 1), max_size=8).map(lambda x: sorted(x, reverse=True))),
    st.integers(1, 16),
    st.integers(-2, 40),
    st.integers(1, 10**8),
    st.integers(1, 10**8),
)
def test_counts_are_within_what_was_guessed(
    likely: list[list[float]], generating: int, room: int, first_ns: int, more_ns: int
) -> None:
    counts = worth(likely, generating, room, costs_of(first_ns, more_ns))
    assert all(0 <= n <= len(shares) for n, shares in zip(counts, likely, strict=True))
    assert sum(counts) <= max(0, room)


def test_a_load_in_a_bad_moment_does_not_stand_for_ever() -> None:
    sure = [0.95**n for n in range(1, 9)]
    costs = StepCosts(Forecast(40_000_000, 10_000_000))
    assert worth([sure], 1, 100, costs) == [0]
    for tokens in (24, 32, 40, 60, 16):
        costs.observe_prompt(3, 10**12)  # says nothing about so many guesses
        costs.observe_prompt(tokens, tokens * 500_000)
    assert worth([sure], 1, 100, costs) == [8]


def test_one_slow_step_does_not_rule_a_size_out_for_ever() -> None:
    costs = StepCosts(Forecast(1_000_000, 10_000_000))
    usual = costs.of(4)
    costs.observe(4, 10**12)
    assert costs.of(4) == 10**12
    for _ in range(1100):
        costs.observe(1, 10_000_000)
    assert costs.of(4) < 2 * usual
