"""The raw usage log, newest first: from the table, from the files of days that are over, and the
calls whose cost their provider has yet to say.

A page steps from day to day, skipping those on which nobody asked for called, so a page costs the
rows of the days that it shows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from app.clock import DAY_MS
from app.ledger.entries import Outcome, UsageRow
from app.metering.questions import Filters
from app.metering.rollup import ENDLESS_MS
from app.metering.segments import Segment, Segments
from app.storage.database import Database, Row
from app.storage.day_file import USAGE_COLUMNS

PAGE_MAX = 1000
Position = tuple[int, str]  # at_ms and call_id: where a page goes on, without the row itself
END: Position = (ENDLESS_MS, "")

_NAMES = """
SELECT s.id, s.user_id, u.name, s.key_id, k.name, s.payer_id, coalesce(o.name, p.name), s.group_id,
       g.name, s.model, s.provider, s.outcome, s.byok
FROM json_each(?) j CROSS JOIN series s ON s.id = j.value
LEFT JOIN users u ON u.id = s.user_id LEFT JOIN api_keys k ON k.id = s.key_id
LEFT JOIN orgs o ON o.id = s.payer_id LEFT JOIN users p ON p.id = s.payer_id
LEFT JOIN resource_groups g ON g.id = s.group_id
"""
_PENDING = """
SELECT json_extract(CAST(p.usage AS TEXT), '$.usage'), h.amount_nano_usd, h.admitted_at_ms,
       p.call_id, h.payer_id, h.group_id, h.byok, u.name, k.name, coalesce(o.name, pu.name), g.name
FROM pending_costs p JOIN holds h ON h.call_id = p.call_id
LEFT JOIN users u ON u.id = h.user_id LEFT JOIN api_keys k ON k.id = h.key_id
LEFT JOIN orgs o ON o.id = h.payer_id LEFT JOIN users pu ON pu.id = h.payer_id
LEFT JOIN resource_groups g ON g.id = h.group_id
WHERE h.admitted_at_ms >= ? AND (h.admitted_at_ms, p.call_id) < (?, ?)
"""
_PENDING_ORDER = " ORDER BY h.admitted_at_ms DESC, p.call_id DESC LIMIT ?"
_PENDING_COLUMNS = {
    "provider": "p.provider",
    "outcome": "json_extract(CAST(p.usage AS TEXT), '$.usage.outcome')",
}
_PARTY_COLUMNS = frozenset({"user_id", "key_id", "payer_id", "group_id"})


class UsageCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call: as measured, what its payer was charged, and from what.

    Names are None where nobody has the id any more. The token counts are disjoint. ``pending`` is
    true while the provider has not said what it cost: the cost is then what is held for it.
    ``paid_from`` is ``GRANT:AMOUNT,…`` with ``due:AMOUNT`` for what went past the credit.
    """

    at_ms: int
    call_id: str
    pending: bool
    user_id: str
    user_name: str | None
    key_id: str
    key_name: str | None
    payer_id: str
    payer_name: str | None
    group_id: str
    group_name: str | None
    model: str
    provider: str
    offer: str
    outcome: Outcome
    byok: bool
    streamed: bool
    attempts: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    audio_input_tokens: int
    audio_output_tokens: int
    images: int
    characters: int
    audio_ms: int
    video_ms: int
    compute_ns: int
    estimated: bool
    latency_ms: int
    first_token_ms: int | None
    cost_nano_usd: int
    provider_cost_nano_usd: int | None
    paid_from: str


class _Range(NamedTuple):
    """What a page may show: from ``since_ms`` on, before ``before``, at most ``limit`` calls."""

    since_ms: int
    before: Position
    limit: int


class Calls:
    """The log of one appliance."""

    def __init__(self, database: Database, segments: Segments | None = None) -> None:
        self._database = database
        self._segments = segments

    async def page(
        self, filters: Filters, *, since_ms: int = 0, before: Position = END, limit: int = 100
    ) -> list[UsageCall]:
        """The newest calls of those admitted from ``since_ms`` on and lying before ``before``."""
        wanted = _Range(since_ms, before, min(limit, PAGE_MAX))
        # In this order a call that ends meanwhile is found twice rather than never.
        pending = await self._pending(filters, wanted)
        ended = await self._ended(filters, wanted)
        seen = {call.call_id for call in ended}
        found = ended + [call for call in pending if call.call_id not in seen]
        found.sort(key=lambda call: (call.at_ms, call.call_id), reverse=True)
        return found[: wanted.limit]

    async def _ended(self, filters: Filters, wanted: _Range) -> list[UsageCall]:
        rows: list[Row] = []
        day = await self._newest_day(filters, wanted.before[0] // DAY_MS)
        while day is not None and day >= wanted.since_ms // DAY_MS and len(rows) < wanted.limit:
            left = wanted._replace(limit=wanted.limit - len(rows))
            rows += await self._of_day(filters, day, left)
            day = await self._newest_day(filters, day - 1)
        return await self._named(rows)

    async def _newest_day(self, filters: Filters, day: int) -> int | None:
        """The last day up to ``day`` on which there may be something."""
        given = filters.given()
        party = {name: value for name, value in given.items() if name in _PARTY_COLUMNS}
        if party:
            kind, table, column, use = "s.coarse_id = 0", "usage_parties", "party_id", party
        else:
            kind, table, column, use = "s.coarse_id = s.id", "usage_days", "series_id", given
        conditions = " AND ".join([kind, *(f"s.{name} = ?" for name in use)])
        sql = (
            f"SELECT max((SELECT max(day) FROM {table} WHERE {column} = s.id"  # noqa: S608
            f" AND day <= ?)) FROM series s WHERE {conditions}"
        )
        rows = await self._database.read(sql, (day, *use.values()))
        found: int | None = rows[0][0]
        return found

    async def _of_day(self, filters: Filters, day: int, wanted: _Range) -> list[Row]:
        """The rows of one day, whichever way it is kept just now."""
        sql, params = await self._day_query(filters, day, wanted)
        while True:
            segment = await self._segment(day)
            rows: list[Row] = []
            if segment is None or segment.emptied:
                rows = await self._database.read(sql, params)
            if segment is not None and not segment.dropped and self._segments is not None:
                rows += await self._segments.ask(day, sql, params) or []
                rows = sorted(rows, reverse=True, key=lambda row: (row[0], row[1]))[: wanted.limit]
            if segment == await self._segment(day):
                return rows

    async def _segment(self, day: int) -> Segment | None:
        found = [] if self._segments is None else await self._segments.of_days(day, day)
        return found[0] if found else None

    async def _day_query(
        self, filters: Filters, day: int, wanted: _Range
    ) -> tuple[str, Sequence[Any]]:
        """Works on the table and on a file alike: series go by number."""
        given = filters.given()
        only, series = "", []
        if given:
            conditions = " AND ".join(f"s.{name} = ?" for name in given)
            found = await self._database.read(
                "SELECT s.id FROM series s CROSS JOIN usage_days t ON t.series_id = s.id"  # noqa: S608
                f" AND t.day = ? WHERE s.party_id <> 0 AND {conditions}",
                (day, *given.values()),
            )
            only = " AND series_id IN (SELECT value FROM json_each(?))"
            series = [msgspec.json.encode([series_id for (series_id,) in found]).decode()]
        sql = (
            f"SELECT {USAGE_COLUMNS} FROM usage"  # noqa: S608
            " WHERE at_ms >= ? AND at_ms < ? AND (at_ms, call_id) < (?, ?)"
            f"{only} ORDER BY at_ms DESC, call_id DESC LIMIT ?"
        )
        since_ms = max(wanted.since_ms, day * DAY_MS)
        return sql, [since_ms, (day + 1) * DAY_MS, *wanted.before, *series, wanted.limit]

    async def _named(self, rows: Sequence[Row]) -> list[UsageCall]:
        series = msgspec.json.encode(sorted({row[2] for row in rows})).decode()
        names = {row[0]: row[1:] for row in await self._database.read(_NAMES, (series,))}
        return [_call(row, names[row[2]]) for row in rows]

    async def _pending(self, filters: Filters, wanted: _Range) -> list[UsageCall]:
        given = filters.given()
        conditions = "".join(
            f" AND {_PENDING_COLUMNS.get(name, 'h.' + name)} = ?" for name in given
        )
        rows = await self._database.read(
            _PENDING + conditions + _PENDING_ORDER,
            (wanted.since_ms, *wanted.before, *given.values(), wanted.limit),
        )
        return [_pending_call(row) for row in rows]


def _call(row: Row, names: Row) -> UsageCall:
    user_id, user, key_id, key, payer_id, payer, group_id, group, model, provider, *rest = names
    outcome, byok = rest
    return UsageCall(
        at_ms=row[0],
        call_id=row[1],
        pending=False,
        user_id=user_id,
        user_name=user,
        key_id=key_id,
        key_name=key,
        payer_id=payer_id,
        payer_name=payer,
        group_id=group_id,
        group_name=group,
        model=model,
        provider=provider,
        offer=f"{model}:{provider}",
        outcome=Outcome(outcome),
        byok=bool(byok),
        streamed=bool(row[3]),
        attempts=row[4],
        input_tokens=row[5],
        cache_read_tokens=row[6],
        cache_write_tokens=row[7],
        output_tokens=row[8],
        reasoning_tokens=row[9],
        audio_input_tokens=row[10],
        audio_output_tokens=row[11],
        images=row[12],
        characters=row[20],
        audio_ms=row[21],
        video_ms=row[22],
        compute_ns=row[13],
        estimated=bool(row[14]),
        latency_ms=row[15],
        first_token_ms=row[16],
        cost_nano_usd=row[17],
        provider_cost_nano_usd=row[18],
        paid_from=row[19],
    )


def _pending_call(row: Row) -> UsageCall:
    """A call as it was measured, with what the hold knows better."""
    usage = msgspec.json.decode(row[0], type=UsageRow)
    amount, at_ms, call_id, payer_id, group_id, byok, user, key, payer, group = row[1:]
    measured = msgspec.structs.asdict(usage) | {
        "at_ms": at_ms,
        "call_id": call_id,
        "payer_id": payer_id,
        "group_id": group_id,
        "byok": bool(byok),
    }
    return UsageCall(
        **measured,
        pending=True,
        user_name=user,
        key_name=key,
        payer_name=payer,
        group_name=group,
        offer=f"{usage.model}:{usage.provider}",
        cost_nano_usd=amount,
        paid_from="",
    )
