"""The usage log: sums by group, within a range, that a range pays for alone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest

from app.clock import SystemClock
from app.ledger.entries import CreditTerms, HoldRequest, Outcome, UsageRow
from app.ledger.sqlite import SqliteLedger
from app.metering.usage import _SQL, Grouping, UsageLog
from app.storage.database import Transaction
from app.storage.sqlite import SqliteDatabase

DAY_MS = 86_400_000
FIRST_MS = 1_793_664_000_000  # 2026-11-03T00:00:00Z
TERMS = CreditTerms(tier="pro", monthly_credit_nano_usd=0, overage=True)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(tmp_path / "turnpike.db")
    ledger = SqliteLedger(opened, SystemClock())
    await opened.open()
    await opened.write(_people)
    calls: list[tuple[int, str, str, str, int, dict[str, Any]]] = [
        (FIRST_MS, "acme/tiny", "mock", "key_1", 100, {}),
        (FIRST_MS + DAY_MS - 1, "acme/tiny", "other", "key_1", 200, {"cache_read_tokens": 7}),
        (FIRST_MS + DAY_MS, "acme/big", "mock", "key_2", 5_000, {"reasoning_tokens": 9}),
        (FIRST_MS + 2 * DAY_MS, "local/m", "local", "key_gone", 1, {"compute_ns": 2_500_000_000}),
    ]
    for n, (at_ms, model, provider, key, cost, extra) in enumerate(calls):
        await _record(ledger, f"call_{n}", at_ms, model, provider, key, cost, extra)
    yield opened
    await opened.close()


def _people(tx: Transaction) -> None:
    for user_id, name in (("user_ann", "ann"), ("user_ben", "ben")):
        tx.execute("INSERT INTO users VALUES (?, ?, 'pro', 'member', 0)", (user_id, name))
    for key_id, user_id, prefix in (
        ("key_1", "user_ann", "AbCdEfGhIj"),
        ("key_2", "user_ben", "KlMnOpQrSt"),
    ):
        tx.execute(
            "INSERT INTO api_keys VALUES (?, ?, 'laptop', ?, zeroblob(32), 0, NULL, NULL)",
            (key_id, user_id, prefix),
        )


async def _record(
    ledger: SqliteLedger,
    call_id: str,
    at_ms: int,
    model: str,
    provider: str,
    key: str,
    cost: int,
    extra: dict[str, Any],
) -> None:
    user = {"key_1": "user_ann", "key_2": "user_ben"}.get(key, "user_gone")
    await ledger.place_hold(
        HoldRequest(
            call_id=call_id,
            payer_id=user,
            user_id=user,
            key_id=key,
            model=model,
            amount_nano_usd=cost,
            floor_nano_usd=cost,
            period="2026-11",
            terms=TERMS,
            admitted_at_ms=at_ms,
            expires_at_ms=at_ms + 1,
        )
    )
    row = UsageRow(
        call_id=call_id,
        at_ms=at_ms,
        user_id=user,
        key_id=key,
        payer_id=user,
        model=model,
        provider=provider,
        outcome=Outcome.COMPLETED,
        streamed=True,
        attempts=2,
        input_tokens=10,
        output_tokens=20,
        latency_ms=5,
        first_token_ms=3,
        **extra,
    )
    await ledger.settle_hold(call_id, cost, row)


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("model", [("acme/big", 5_000), ("acme/tiny", 300), ("local/m", 1)]),
        ("provider", [("mock", 5_100), ("other", 200), ("local", 1)]),
        ("user", [("user_ben", 5_000), ("user_ann", 300), ("user_gone", 1)]),
        ("key", [("key_2", 5_000), ("key_1", 300), ("key_gone", 1)]),
        ("day", [("2026-11-03", 300), ("2026-11-04", 5_000), ("2026-11-05", 1)]),
    ],
)
async def test_sums_by_group(
    database: SqliteDatabase, by: Grouping, expected: list[tuple[str, int]]
) -> None:
    found = await UsageLog(database).summary(by, 0, FIRST_MS + 10 * DAY_MS)
    assert [(each.group, each.cost_nano_usd) for each in found] == expected
    assert sum(each.calls for each in found) == 4
    assert sum(each.input_tokens for each in found) == 47
    assert sum(each.output_tokens for each in found) == 89
    assert sum(each.compute_ns for each in found) == 2_500_000_000


async def test_labels_are_names_and_never_whole_keys(database: SqliteDatabase) -> None:
    log = UsageLog(database)
    users = await log.summary("user", 0, 2**62)
    assert [each.label for each in users] == ["ben", "ann", "user_gone"]
    keys = await log.summary("key", 0, 2**62)
    assert [each.label for each in keys] == [
        "laptop (tp_KlMnOpQrSt…)",
        "laptop (tp_AbCdEfGhIj…)",
        "key_gone",
    ]
    for by in ("model", "provider", "day"):
        for each in await log.summary(by, 0, 2**62):
            assert each.label == each.group


async def test_a_range_takes_its_start_and_leaves_its_end(database: SqliteDatabase) -> None:
    log = UsageLog(database)
    found = await log.summary("day", FIRST_MS + DAY_MS - 1, FIRST_MS + DAY_MS)
    assert [(each.group, each.calls) for each in found] == [("2026-11-03", 1)]
    assert await log.summary("model", FIRST_MS + 5 * DAY_MS, FIRST_MS + 6 * DAY_MS) == []


async def test_rows_come_newest_first_and_whole(database: SqliteDatabase) -> None:
    log = UsageLog(database)
    rows = await log.rows()
    assert [each.row.call_id for each in rows] == ["call_3", "call_2", "call_1", "call_0"]
    newest = rows[0]
    assert (newest.cost_nano_usd, newest.row.compute_ns) == (1, 2_500_000_000)
    assert (newest.row.outcome, newest.row.streamed) == (Outcome.COMPLETED, True)
    assert (newest.row.attempts, newest.row.first_token_ms) == (2, 3)
    assert [each.row.call_id for each in await log.rows(1)] == ["call_3"]
    some = await log.rows(since_ms=FIRST_MS + 1, until_ms=FIRST_MS + 2 * DAY_MS)
    assert [each.row.call_id for each in some] == ["call_2", "call_1"]


@pytest.mark.parametrize("by", get_args(Grouping))
async def test_a_range_is_searched_not_scanned(database: SqliteDatabase, by: Grouping) -> None:
    plan = await database.read(f"EXPLAIN QUERY PLAN {_SQL[by]}", (0, 1))
    text = "\n".join(str(row[3]) for row in plan)
    assert "SEARCH usage USING PRIMARY KEY (at_ms>? AND at_ms<?)" in text
    assert "SCAN usage" not in text
    assert "SCAN k" not in text
    assert "SCAN u" not in text
