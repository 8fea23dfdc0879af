"""Who is in the next batch: laws for any crowd."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from local_runtime.engines.text_batch import Row, Text, Turns, Work, fill

BATCH, PLACES = 64, 8


def crowd(shapes: list[tuple[str, list[int]]]) -> list[Work]:
    """Works as (key, lengths of its texts)."""
    works = []
    for number, (key, lengths) in enumerate(shapes):
        work = Work(str(number), number, key, None, texts=len(lengths))
        work.waiting = deque(Text(work, at, [0] * length) for at, length in enumerate(lengths))
        works.append(work)
    return works


def compute(rows: list[Row]) -> None:
    for row in rows:
        row.text.computed += row.tokens


def batches(works: list[Work], *, whole: bool) -> list[list[tuple[str, int, int]]]:
    """All batches until nobody waits, as (request, text, tokens)."""
    turns, found = Turns(), []
    while any(work.waiting for work in works):
        rows = fill(works, turns, tokens_max=BATCH, places_max=PLACES, whole=whole)
        assert rows, "somebody waits, so something is computed"
        assert len(rows) <= PLACES
        assert len({id(row.text) for row in rows}) == len(rows)
        compute(rows)
        found.append([(row.text.work.request_id, row.text.index, row.tokens) for row in rows])
    return found


shapes = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(st.integers(1, 3 * BATCH), min_size=1, max_size=12)),
    min_size=1,
    max_size=8,
)


@given(shapes, st.booleans())
def test_every_token_is_computed_once(
    given_shapes: list[tuple[str, list[int]]], whole: bool
) -> None:
    found = batches(crowd(given_shapes), whole=whole)
    computed: Counter[tuple[str, int]] = Counter()
    for batch in found:
        for request, index, tokens in batch:
            computed[request, index] += tokens
    assert computed == {
        (str(number), index): length
        for number, (_, lengths) in enumerate(given_shapes)
        for index, length in enumerate(lengths)
    }


@given(shapes)
def test_whole_texts_stay_whole(given_shapes: list[tuple[str, list[int]]]) -> None:
    works = crowd(given_shapes)
    for batch in batches(works, whole=True):
        total = sum(tokens for _, _, tokens in batch)
        assert total <= BATCH or len(batch) == 1
        for request, index, tokens in batch:
            assert tokens == given_shapes[int(request)][1][index]


@given(shapes)
def test_at_most_one_text_is_begun(given_shapes: list[tuple[str, list[int]]]) -> None:
    works, turns = crowd(given_shapes), Turns()
    while any(work.waiting for work in works):
        rows = fill(works, turns, tokens_max=BATCH, places_max=PLACES, whole=False)
        assert sum(row.tokens for row in rows) <= BATCH
        compute(rows)
        assert sum(1 for work in works for text in work.waiting if text.computed) <= 1


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_keys_that_always_wait_get_the_same(short: int, long: int, whole: bool) -> None:
    works = crowd([("a", [short] * 400), ("b", [long] * 400)])
    turns: Turns = Turns()
    served: Counter[str] = Counter()
    for _ in range(20):
        rows = fill(works, turns, tokens_max=BATCH, places_max=PLACES, whole=whole)
        compute(rows)
        for row in rows:
            served[row.text.work.key] += row.tokens
        if not all(work.waiting for work in works):
            return
        assert abs(served["a"] - served["b"]) <= BATCH


def test_within_a_key_the_first_comes_first_also_when_it_is_long() -> None:
    works = crowd([("a", [10]), ("a", [BATCH]), ("a", [10]), ("b", [10, 10])])
    found = batches(works, whole=True)
    assert found == [
        [("0", 0, 10), ("3", 0, 10), ("3", 1, 10)],
        [("1", 0, BATCH)],
        [("2", 0, 10)],
    ]


def test_a_newcomer_does_not_wait_for_the_past() -> None:
    works, turns = crowd([("a", [20] * 30)]), Turns()
    for _ in range(5):
        compute(fill(works, turns, tokens_max=BATCH, places_max=PLACES, whole=True))
    late = crowd([("b", [20] * 30)])
    rows = fill([*works, *late], turns, tokens_max=BATCH, places_max=PLACES, whole=True)
    assert Counter(row.text.work.key for row in rows) in ({"a": 1, "b": 2}, {"a": 2, "b": 1})
