"""Sums equal what adding up the rows gives: any range, grouping and filter, however the rows and
sums are kept by then."""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ledger.entries import Outcome, UsageRow
from app.metering.closing import close_months
from app.metering.questions import GROUPINGS, Filters, Grouping
from app.metering.rollup import day_name
from tests.app.metering.rig import DAY_MS, FIRST_MS, HOUR_MS, Books, Call, opened

SPAN_DAYS = 75  # from 2026-11-01: two whole months and a half


def _moments() -> st.SearchStrategy[int]:
    """Any moment, and often those around which something changes."""
    hours = st.integers(-2, SPAN_DAYS * 24 + 2).map(lambda hour: FIRST_MS + hour * HOUR_MS)
    days = st.integers(-1, SPAN_DAYS + 1).map(lambda day: FIRST_MS + day * DAY_MS)
    edges = st.builds(lambda at, by: at + by, hours | days, st.sampled_from([-1, 0, 1]))
    return st.integers(FIRST_MS - DAY_MS, FIRST_MS + (SPAN_DAYS + 1) * DAY_MS) | edges


_CALLS = st.lists(
    st.builds(
        Call,
        at_ms=_moments().map(lambda at: max(at, FIRST_MS)),
        user=st.sampled_from(["ann", "ben"]),
        key=st.sampled_from(["1", "2"]),
        payer=st.sampled_from(["", "org_x"]),
        group=st.sampled_from(["", "group_g"]),
        model=st.sampled_from(["acme/tiny", "acme/big"]),
        provider=st.sampled_from(["mock", "other"]),
        outcome=st.sampled_from([Outcome.COMPLETED, Outcome.FAILED]),
        cost=st.integers(0, 10**9),
        input_tokens=st.integers(0, 1000),
        audio_ms=st.integers(0, 10**7),
    ),
    min_size=1,
    max_size=40,
)
_QUESTIONS = st.tuples(
    st.lists(st.sampled_from(GROUPINGS), min_size=1, max_size=3, unique=True),
    _moments(),
    st.none() | _moments(),
    st.builds(
        Filters,
        user_id=st.sampled_from([None, None, "user_ann"]),
        key_id=st.sampled_from([None, None, None, "key_ann_1"]),
        payer_id=st.sampled_from([None, None, "org_x"]),
        group_id=st.sampled_from([None, None, None, "group_g"]),
        model=st.sampled_from([None, None, "acme/big"]),
        provider=st.sampled_from([None, None, None, "other"]),
        outcome=st.sampled_from([None, None, None, "failed"]),
    ),
)
_COLUMNS: dict[Grouping, str] = {
    "model": "model",
    "provider": "provider",
    "key": "key_id",
    "user": "user_id",
    "org": "payer_id",
    "group": "group_id",
    "outcome": "outcome",
}


def _value(row: UsageRow, grouping: Grouping) -> str:
    if grouping == "day":
        return day_name(row.at_ms // DAY_MS)
    return str(getattr(row, _COLUMNS[grouping]))


def brute_force(
    calls: Sequence[tuple[UsageRow, int]],
    by: Sequence[Grouping],
    since_ms: int,
    until_ms: int | None,
    filters: Filters,
) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The answer by definition."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * 9)
    for row, cost in calls:
        if row.at_ms < since_ms or (until_ms is not None and row.at_ms >= until_ms):
            continue
        if any(str(getattr(row, name)) != value for name, value in filters.given().items()):
            continue
        sums = found[tuple(_value(row, grouping) for grouping in by)]
        measured = (
            1,
            row.input_tokens + row.cache_read_tokens,
            row.output_tokens + row.reasoning_tokens + row.audio_output_tokens,
            row.compute_ns,
            row.images,
            row.characters,
            row.audio_ms,
            row.video_ms,
            cost,
        )
        sums[:] = [a + b for a, b in zip(sums, measured, strict=True)]
    return {group: tuple(sums) for group, sums in found.items()}


async def asked(books: Books, question: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    """The log's answer in the same form; no group twice."""
    by, since_ms, until_ms, filters = question
    answer = await books.log.summary(by, since_ms, until_ms, filters)
    found: dict[tuple[str, ...], tuple[int, ...]] = {
        tuple(line.groups[grouping] for grouping in by): (
            line.calls,
            line.input_tokens,
            line.output_tokens,
            line.compute_ns,
            line.images,
            line.characters,
            line.audio_ms,
            line.video_ms,
            line.cost_nano_usd,
        )
        for line in answer.data
    }
    assert len(found) == len(answer.data)
    return found


@settings(max_examples=30, deadline=None)
@given(calls=_CALLS, late=_CALLS, questions=st.lists(_QUESTIONS, min_size=4, max_size=8))
async def test_sums_are_those_of_the_rows(
    calls: list[Call], late: list[Call], questions: list[Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as books:
            await books.record([Call(FIRST_MS), *calls], per_group=7)
            for question in questions:
                assert await asked(books, question) == brute_force(books.calls, *question)
            # Two months are over, and all days but the last ones.
            await books.it_is(FIRST_MS + (SPAN_DAYS - 3) * DAY_MS)
            assert await close_months(books.database, books.clock)
            await books.segments.seal()
            for question in questions:
                assert await asked(books, question) == brute_force(books.calls, *question)
            # Calls of open days, in any order, some after a look at what came later.
            open_ms = FIRST_MS + (SPAN_DAYS - 3) * DAY_MS
            await books.record(
                [call._replace(at_ms=max(call.at_ms, open_ms)) for call in late], per_group=5
            )
            for question in questions:
                assert await asked(books, question) == brute_force(books.calls, *question)


@settings(max_examples=30, deadline=None)
@given(calls=_CALLS)
async def test_a_months_spend_is_that_of_its_rows(calls: list[Call]) -> None:
    scopes = {
        "key": ("key_ann_1", Filters(key_id="key_ann_1")),
        "user": ("user_ann", Filters(user_id="user_ann")),
        "member": ("org_x/user_ann", Filters(payer_id="org_x", user_id="user_ann")),
        "group": ("group_g", Filters(group_id="group_g")),
        "payer": ("org_x", Filters(payer_id="org_x")),
    }
    december, january = FIRST_MS + 30 * DAY_MS, FIRST_MS + 61 * DAY_MS
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as books:
            await books.record(calls, per_group=3)
            for scope, (subject, filters) in scopes.items():
                spent = await books.database.submit(books.recorder.spent, scope, subject, "2026-12")
                sums = brute_force(books.calls, ["model"], december, january, filters)
                assert spent == sum(each[-1] for each in sums.values())


@pytest.mark.parametrize("by", GROUPINGS)
async def test_nothing_adds_up_to_nothing(tmp_path: Path, by: Grouping) -> None:
    async with opened(tmp_path) as books:
        assert (await books.log.summary([by])).data == []
        await books.record([Call(FIRST_MS)])
        assert (await books.log.summary([by], FIRST_MS + 1)).data == []
        assert (await books.log.summary([by], FIRST_MS, FIRST_MS)).data == []
        assert (await books.log.summary([by], FIRST_MS + 5, FIRST_MS)).data == []
        assert len((await books.log.summary([by], FIRST_MS, FIRST_MS + 1)).data) == 1


async def test_days_come_in_order_and_else_the_dearest_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await books.record(
            [
                Call(FIRST_MS, model="acme/tiny", cost=5),
                Call(FIRST_MS, model="acme/big", cost=9),
                Call(FIRST_MS + DAY_MS, model="acme/tiny", cost=20),
            ]
        )
        models = (await books.log.summary(["model"])).data
        assert [line.group for line in models] == ["acme/tiny", "acme/big"]
        both = (await books.log.summary(["model", "day"])).data
        assert [line.group for line in both] == [
            "acme/big · 2026-11-01",
            "acme/tiny · 2026-11-01",
            "acme/tiny · 2026-11-02",
        ]
        first = (await books.log.summary(["model"], limit=1)).data
        assert [line.group for line in first] == ["acme/tiny"]
