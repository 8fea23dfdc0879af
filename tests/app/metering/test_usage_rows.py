"""Single calls: newest first, by pages, with names, and with what is still to be paid."""

import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ledger.entries import Outcome
from app.metering.questions import Filters
from app.metering.usage import UsageLog
from tests.app.ledger.books import PRO, HandStandings, hold, used
from tests.app.ledger.books import opened as open_ledger
from tests.app.metering.rig import DAY_MS, FIRST_MS, HOUR_MS, Books, Call, opened

_CALLS = st.lists(
    st.builds(
        Call,
        at_ms=st.integers(0, 5 * 24).map(lambda hour: FIRST_MS + hour * HOUR_MS),
        user=st.sampled_from(["ann", "ben"]),
        key=st.just("1"),
        group=st.just(""),
        provider=st.just("mock"),
        cost=st.integers(0, 100),
        input_tokens=st.integers(0, 100),
        audio_ms=st.integers(0, 100),
        payer=st.sampled_from(["", "org_x"]),
        model=st.sampled_from(["acme/tiny", "acme/big"]),
        outcome=st.sampled_from([Outcome.COMPLETED, Outcome.FAILED]),
    ),
    max_size=30,
)
_FILTERS = st.builds(
    Filters,
    user_id=st.sampled_from([None, "user_ann"]),
    payer_id=st.sampled_from([None, "org_x"]),
    model=st.sampled_from([None, "acme/big"]),
    outcome=st.sampled_from([None, "failed"]),
)


async def _pages(books: Books, filters: Filters, since_ms: int, size: int) -> list[str]:
    found: list[str] = []
    page = await books.log.rows(size, filters=filters, since_ms=since_ms)
    while page:
        found += [call.call_id for call in page]
        last = page[-1]
        page = await books.log.rows(
            size, filters=filters, since_ms=since_ms, before=(last.at_ms, last.call_id)
        )
    return found


@settings(max_examples=20, deadline=None)
@given(calls=_CALLS, filters=_FILTERS, since=st.integers(-1, 5 * 24), size=st.integers(1, 9))
async def test_pages_have_each_call_once(
    calls: list[Call], filters: Filters, since: int, size: int
) -> None:
    since_ms = FIRST_MS + since * HOUR_MS
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as books:
            await books.record(calls)
            expected = [
                row.call_id
                for row, _ in sorted(
                    books.calls, key=lambda call: (call[0].at_ms, call[0].call_id), reverse=True
                )
                if row.at_ms >= since_ms
                and all(getattr(row, name) == value for name, value in filters.given().items())
            ]
            assert await _pages(books, filters, since_ms, size) == expected
            await books.it_is(FIRST_MS + 3 * DAY_MS + 2 * HOUR_MS)
            await books.segments.seal()
            assert await _pages(books, filters, since_ms, size) == expected


async def _people(books: Books) -> None:
    await books.execute(
        "INSERT INTO users (id, name, tier, role, created_at_ms)"
        " VALUES ('user_ann', 'ann', 'pro', 'member', 0)"
    )
    await books.execute(
        "INSERT INTO api_keys (id, user_id, name, prefix, secret_hash, created_at_ms)"
        " VALUES ('key_ann_1', 'user_ann', 'laptop', 'AbCdEfGhIj', zeroblob(32), 0)"
    )
    await books.execute(
        "INSERT INTO orgs (id, name, tier, created_at_ms) VALUES ('org_x', 'xenon', 'team', 0)"
    )
    await books.execute(
        "INSERT INTO resource_groups (id, org_id, name, created_at_ms)"
        " VALUES ('group_g', 'org_x', 'lab', 0)"
    )


async def test_a_call_has_everything_that_was_measured_and_names(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _people(books)
        await books.record(
            [Call(FIRST_MS, payer="org_x", group="group_g"), Call(FIRST_MS, user="gone")]
        )
        gone, found = await books.log.rows()
        assert (gone.user_id, gone.user_name, gone.key_name) == ("user_gone", None, None)
        row, cost = books.calls[0]
        measured = {name: getattr(found, name) for name in row.__struct_fields__}
        assert measured == msgspec.structs.asdict(row)
        assert (found.cost_nano_usd, found.paid_from) == (cost, f"7:{cost}")
        assert (found.user_name, found.key_name) == ("ann", "laptop")
        assert (found.payer_name, found.group_name) == ("xenon", "lab")
        assert (found.offer, found.pending) == ("acme/tiny:mock", False)


async def test_sums_show_names_and_never_whole_keys(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await _people(books)
        await books.record(
            [Call(FIRST_MS, payer="org_x", group="group_g", cost=5), Call(FIRST_MS, user="gone")]
        )

        async def labels(by: str) -> list[str]:
            (grouping,) = [each for each in ("key", "user", "org", "group") if each == by]
            return [line.label for line in (await books.log.summary([grouping])).data]

        assert await labels("key") == ["key_gone_1", "laptop (tp_AbCdEfGhIj…)"]
        assert await labels("user") == ["user_gone", "ann"]
        assert await labels("org") == ["user_gone", "xenon"]
        assert await labels("group") == ["", "xenon/lab"]


async def test_what_the_ledger_waits_for_is_shown_as_it_was_measured(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "turnpike.db", standings=HandStandings(PRO)) as books:
        request, log = hold(4321), UsageLog(books.database)
        await books.ledger.place_hold(request)
        await books.ledger.bind_request(request.call_id, "mock", "up-1")
        row = used(request.call_id, characters=70, audio_ms=1_500, video_ms=8_000)
        await books.ledger.await_cost(request.call_id, row, give_up_at_ms=request.expires_at_ms)
        (found,) = await log.rows(filters=Filters(outcome="completed"))
        assert (found.pending, found.cost_nano_usd) == (True, 4321)
        assert (found.characters, found.audio_ms, found.video_ms) == (70, 1_500, 8_000)
        assert await log.rows(filters=Filters(outcome="failed")) == []
        await books.ledger.resolve_cost(request.call_id, 17)
        (ended,) = await log.rows()
        assert (ended.pending, ended.cost_nano_usd) == (False, 17)
        assert (ended.characters, ended.audio_ms, ended.video_ms) == (70, 1_500, 8_000)


async def test_a_cost_that_is_to_come_is_shown_at_what_is_held(tmp_path: Path) -> None:
    async with opened(tmp_path) as books:
        await books.record([Call(FIRST_MS + 1), Call(FIRST_MS + 9)])
        waiting = Call(FIRST_MS + 5, payer="org_x").row(77)
        await books.execute(
            "INSERT INTO holds (call_id, payer_id, period, user_id, key_id, model, amount_nano_usd,"
            " overage, admitted_at_ms, expires_at_ms) VALUES (?, 'org_x', '2026-11', ?, ?, ?, 4321,"
            " 1, ?, 0)",
            waiting.call_id,
            waiting.user_id,
            waiting.key_id,
            waiting.model,
            waiting.at_ms,
        )
        await books.execute(
            "INSERT INTO pending_costs (call_id, provider, upstream_id, served_at_ms,"
            " give_up_at_ms, usage) VALUES (?, 'mock', 'up-1', 0, 0, ?)",
            waiting.call_id,
            msgspec.json.encode({"usage": waiting, "lost_nano_usd": 0}),
        )
        found = await books.log.rows()
        assert [(call.call_id, call.pending, call.cost_nano_usd) for call in found] == [
            ("call_000001", False, 100),
            ("call_000077", True, 4321),
            ("call_000000", False, 100),
        ]
        assert await _pages(books, Filters(), 0, 1) == [call.call_id for call in found]

        async def of(filters: Filters) -> list[bool]:
            return [call.pending for call in await books.log.rows(filters=filters)]

        assert await of(Filters(payer_id="org_x")) == [True]
        assert await of(Filters(provider="other")) == []
        assert await of(Filters(outcome="failed")) == []
        assert await of(Filters(outcome="completed", payer_id="user_ann")) == [False, False]
