"""What was used: sums of any range by any grouping, exact to the millisecond.

The sums are written with the rows (``app.ledger.usage_rows``); rows themselves are only read for
the hours that a range cuts in two.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from app.clock import DAY_MS
from app.errors import InvalidRequest
from app.ledger.usage_rows import SUMMED
from app.metering.calls import END, Calls, Position, UsageCall
from app.metering.closing import closed_months
from app.metering.questions import Filters, Grouping, may_use_months, question
from app.metering.rollup import ENDLESS_MS, HOUR_MS, Cut, Level, cuts, day_name
from app.metering.segments import Segment, Segments
from app.storage.database import Database, Row

GROUPS_MAX = 100_000
EVERYTHING = Filters()
_SEALED_SUMS = (
    f"SELECT series_id, count(*), {', '.join(f'sum({name})' for name in SUMMED[1:])}"  # noqa: S608
    " FROM usage WHERE at_ms >= ? AND at_ms < ? GROUP BY series_id"
)


class UsageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the calls of one group add up to.

    ``groups`` has the value of each grouping: a name of a model, provider or outcome, the id of a
    key, user, org (or user that pays) or resource group, or the UTC day as ``YYYY-MM-DD``;
    ``labels`` what to show for it, for example a user's name. ``group`` and ``label`` are the same
    in one text. Input counts cached and audio tokens too, output counts reasoning and audio; the
    parts are given beside them.
    """

    group: str
    label: str
    groups: dict[str, str]
    labels: dict[str, str]
    calls: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    audio_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    audio_output_tokens: int
    images: int
    characters: int
    audio_ms: int
    video_ms: int
    compute_ns: int
    cost_nano_usd: int


class UsageSums(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and the range that it is exact for: moments lie on the hour before where the
    calls of that hour are no longer kept one by one."""

    since_ms: int
    until_ms: int | None
    data: list[UsageSummary]


_ByDay = dict[int, Segment | None]


class _Edges(NamedTuple):
    """How the calls of the hours that a range cuts are to be read."""

    cuts: list[Cut]
    sealed_sums: str
    segments: _ByDay


class _HourIsGone(Exception):
    """The calls of the hour that starts at ``hour_ms`` are no longer kept."""

    def __init__(self, hour_ms: int) -> None:
        super().__init__(hour_ms)
        self.hour_ms = hour_ms


class UsageLog:
    """Questions about what was used."""

    def __init__(self, database: Database, segments: Segments | None = None) -> None:
        self._database = database
        self._segments = segments
        self._calls = Calls(database, segments)

    async def rows(
        self,
        limit: int = 100,
        *,
        filters: Filters = EVERYTHING,
        since_ms: int = 0,
        before: Position = END,
    ) -> list[UsageCall]:
        """The newest calls admitted from ``since_ms`` on, before a position."""
        return await self._calls.page(filters, since_ms=since_ms, before=before, limit=limit)

    async def key_id(self, id_or_prefix: str) -> str:
        """The id of the key with this id or visible part; what nobody has stays as it is."""
        prefix = id_or_prefix.removeprefix("tp_").split("_", 1)[0].rstrip("…")
        rows = await self._database.read(
            "SELECT id FROM api_keys WHERE id = ? OR prefix = ?", (id_or_prefix, prefix)
        )
        return str(rows[0][0]) if rows else id_or_prefix

    async def summary(
        self,
        by: Sequence[Grouping],
        since_ms: int = 0,
        until_ms: int | None = None,
        filters: Filters = EVERYTHING,
        *,
        limit: int | None = None,
    ) -> UsageSums:
        """Sums of the calls admitted in [since, until): days in order, then dearest first.

        Raises InvalidRequest for more than ``GROUPS_MAX`` groups, where no limit was given.
        """
        since_ms = max(since_ms, 0)
        until_ms = ENDLESS_MS if until_ms is None else min(until_ms, ENDLESS_MS)
        most = GROUPS_MAX if limit is None else min(limit, GROUPS_MAX)
        months = await closed_months(self._database) if may_use_months(by, filters) else []
        while True:
            try:
                edges = await self._edges(cuts(since_ms, until_ms, months))
            except _HourIsGone as gone:
                # The same hour for a range's end and the next one's start: they still add up.
                since_ms, until_ms = (
                    gone.hour_ms if moment // HOUR_MS * HOUR_MS == gone.hour_ms else moment
                    for moment in (since_ms, until_ms)
                )
                continue
            asked = question(by, edges.cuts, filters, sealed_sums=edges.sealed_sums, limit=most + 1)
            rows = await self._database.read(asked.sql, asked.params)
            if edges.segments == await self._sealed(edges.segments):
                break
        if len(rows) > most and limit is None:
            raise InvalidRequest(
                f"That is more than {GROUPS_MAX} groups: ask for a shorter range, fewer groupings"
                " at once, or a `limit`.",
                param="by",
            )
        # A thread, so that calls get their turns while a long answer is made.
        data = await asyncio.to_thread(_summaries, by, rows[:most])
        end_ms = None if until_ms == ENDLESS_MS else until_ms
        return UsageSums(since_ms=since_ms, until_ms=end_ms, data=data)

    async def _edges(self, planned: list[Cut]) -> _Edges:
        """Decide for each hour that is cut where its calls are: in the table, in a file or both.

        Raises _HourIsGone. A day that moves out meanwhile is noticed afterwards.
        """
        days = {cut.start // DAY_MS for cut in planned if cut.level is Level.CALLS}
        segments = await self._sealed(days)
        kept: list[Cut] = []
        sealed: list[list[int]] = []
        for cut in planned:
            segment = segments.get(cut.start // DAY_MS) if cut.level is Level.CALLS else None
            if segment is None or segment.emptied:
                kept.append(cut)
            if segment is not None:
                sealed += await self._sealed_sums(cut, segment)
        return _Edges(kept, msgspec.json.encode(sealed).decode(), segments)

    async def _sealed_sums(self, cut: Cut, segment: Segment) -> list[list[int]]:
        rows = None
        if self._segments is not None and not segment.dropped:
            rows = await self._segments.ask(segment.day, _SEALED_SUMS, (cut.start, cut.end))
        if rows is None:
            raise _HourIsGone(cut.start // HOUR_MS * HOUR_MS)
        return [[row[0], segment.day, cut.sign, *row[1:]] for row in rows]

    async def _sealed(self, days: Iterable[int]) -> _ByDay:
        if self._segments is None:
            return dict.fromkeys(days)
        found = {day: await self._segments.of_days(day, day) for day in days}
        return {day: each[0] if each else None for day, each in found.items()}


def _summaries(by: Sequence[Grouping], rows: Sequence[Row]) -> list[UsageSummary]:
    return [_summary(by, row) for row in rows]


def _summary(by: Sequence[Grouping], row: Row) -> UsageSummary:
    width = len(by)
    values = [
        day_name(value) if grouping == "day" else value
        for grouping, value in zip(by, row[width : 2 * width], strict=True)
    ]
    labels = [value if label is None else label for label, value in zip(row, values, strict=False)]
    sums = dict(zip(SUMMED, row[2 * width :], strict=True))
    return UsageSummary(
        group=" · ".join(values),
        label=" · ".join(labels),
        groups=dict(zip(by, values, strict=True)),
        labels=dict(zip(by, labels, strict=True)),
        calls=sums["calls"],
        input_tokens=sums["input_tokens"]
        + sums["cache_read_tokens"]
        + sums["cache_write_tokens"]
        + sums["audio_input_tokens"],
        cache_read_tokens=sums["cache_read_tokens"],
        cache_write_tokens=sums["cache_write_tokens"],
        audio_input_tokens=sums["audio_input_tokens"],
        output_tokens=sums["output_tokens"]
        + sums["reasoning_tokens"]
        + sums["audio_output_tokens"],
        reasoning_tokens=sums["reasoning_tokens"],
        audio_output_tokens=sums["audio_output_tokens"],
        images=sums["images"],
        characters=sums["characters"],
        audio_ms=sums["audio_ms"],
        video_ms=sums["video_ms"],
        compute_ns=sums["compute_ns"],
        cost_nano_usd=sums["cost_nano_usd"],
    )
