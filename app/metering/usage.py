"""The usage log: one row per call, written by the ledger beside the settlement, read here."""

from datetime import UTC, datetime
from typing import Literal

import msgspec

from app.ledger.entries import Outcome, UsageRow
from app.storage.database import Database, Row

ROWS_MAX = 1000
Grouping = Literal["model", "provider", "key", "user", "day"]
_DAY_MS = 86_400_000
_ALWAYS_MS = 2**62

# The group as it is kept, what names it for people, and where that comes from. What a caller sends
# chooses among these and never becomes part of a query.
_GROUPS: dict[Grouping, tuple[str, str, str]] = {
    "model": ("model", "s.grouped", ""),
    "provider": ("provider", "s.grouped", ""),
    "key": (
        "key_id",
        "k.name || ' (tp_' || k.prefix || '…)'",
        "LEFT JOIN api_keys k ON k.id = s.grouped",
    ),
    "user": ("user_id", "u.name", "LEFT JOIN users u ON u.id = s.grouped"),
    "day": ("at_ms / 86400000", "s.grouped", ""),
}

_ROWS = """
SELECT call_id, at_ms, user_id, key_id, payer_id, model, provider, outcome, streamed, attempts,
       input_tokens, cache_read_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
       compute_ns, estimated, latency_ms, first_token_ms, cost_nano_usd
FROM usage WHERE at_ms >= ? AND at_ms < ? ORDER BY at_ms DESC, call_id DESC LIMIT ?
"""

_SUMS = """
SELECT s.grouped, :label, s.calls, s.input, s.output, s.compute, s.cost
FROM (
    SELECT :column AS grouped, count(*) AS calls,
           sum(input_tokens + cache_read_tokens + cache_write_tokens) AS input,
           sum(output_tokens + reasoning_tokens) AS output,
           sum(compute_ns) AS compute, sum(cost_nano_usd) AS cost
    FROM usage WHERE at_ms >= ? AND at_ms < ? GROUP BY grouped
) s :join ORDER BY :order
"""


class UsageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of one group add up to.

    ``group`` is the model's or provider's name, the key's or user's id, or the UTC day as
    ``YYYY-MM-DD``; ``label`` is what to show for it: a user's name, a key's name and the part of it
    that may be seen, else the group. Input counts cached tokens too, output counts reasoning.
    """

    group: str
    label: str
    calls: int
    input_tokens: int
    output_tokens: int
    compute_ns: int
    cost_nano_usd: int


class UsageEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One call: as measured, and what its payer was charged."""

    row: UsageRow
    cost_nano_usd: int


class UsageLog:
    """Questions about what was used. The table lies in the order of time: a range costs its own
    rows, however long the log is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def rows(
        self, limit: int = 100, *, since_ms: int = 0, until_ms: int | None = None
    ) -> list[UsageEntry]:
        """The newest calls admitted in [since, until)."""
        end_ms = _ALWAYS_MS if until_ms is None else until_ms
        rows = await self._database.read(_ROWS, (since_ms, end_ms, min(limit, ROWS_MAX)))
        return [_entry(row) for row in rows]

    async def summary(self, by: Grouping, since_ms: int, until_ms: int) -> list[UsageSummary]:
        """Sums of the calls admitted in [since, until): days in order, else dearest first."""
        rows = await self._database.read(_SQL[by], (since_ms, until_ms))
        return [_summary(by, row) for row in rows]


def _sums(by: Grouping) -> str:
    column, label, join = _GROUPS[by]
    order = "s.grouped" if by == "day" else "s.cost DESC, s.calls DESC, s.grouped"
    sql = _SUMS
    for name, text in (("column", column), ("label", label), ("join", join), ("order", order)):
        sql = sql.replace(f":{name}", text)
    return sql


_SQL: dict[Grouping, str] = {by: _sums(by) for by in _GROUPS}


def _summary(by: Grouping, row: Row) -> UsageSummary:
    grouped, label, calls, input_tokens, output_tokens, compute_ns, cost_nano_usd = row
    if by == "day":
        grouped = label = _day(grouped)
    return UsageSummary(
        group=grouped,
        label=grouped if label is None else label,
        calls=calls,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        compute_ns=compute_ns,
        cost_nano_usd=cost_nano_usd,
    )


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * _DAY_MS // 1000, UTC).strftime("%Y-%m-%d")


def _entry(row: Row) -> UsageEntry:
    return UsageEntry(
        row=UsageRow(
            call_id=row[0],
            at_ms=row[1],
            user_id=row[2],
            key_id=row[3],
            payer_id=row[4],
            model=row[5],
            provider=row[6],
            outcome=Outcome(row[7]),
            streamed=bool(row[8]),
            attempts=row[9],
            input_tokens=row[10],
            cache_read_tokens=row[11],
            cache_write_tokens=row[12],
            output_tokens=row[13],
            reasoning_tokens=row[14],
            compute_ns=row[15],
            estimated=bool(row[16]),
            latency_ms=row[17],
            first_token_ms=row[18],
        ),
        cost_nano_usd=row[19],
    )
