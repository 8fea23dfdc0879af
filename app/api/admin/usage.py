"""``/api/usage``: sums and single calls, as JSON or CSV."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from litestar import Request, Response, get
from litestar.response import Stream

from app.api.admin.asking import query_of, services_of
from app.api.admin.usage_access import filters_of
from app.api.admin.usage_wire import (
    Format,
    UsageAsked,
    UsageList,
    UsageQuery,
    UsageRowList,
    UsageRowsQuery,
)
from app.errors import InvalidRequest
from app.metering.calls import END, PAGE_MAX, Position, UsageCall
from app.metering.export import calls_csv, calls_header, summary_csv
from app.metering.questions import GROUPINGS, Filters, Grouping
from app.metering.usage import UsageLog

ROWS_PER_PAGE = 100
LINES_PER_MESSAGE = 500
_MEDIA_TYPES: dict[Format, str] = {"json": "application/json", "csv": "text/csv"}


@get("/usage")
async def show_usage(request: Request[Any, Any, Any]) -> Response[Any]:
    """What was used between two moments, grouped."""
    asked = query_of(request, UsageQuery)
    by, filters = groupings(asked.by), await filters_of(request, asked)
    since_ms, until_ms = _range(asked)
    log = services_of(request).usage
    sums = await log.summary(by, since_ms, until_ms, filters, limit=asked.limit)
    if _format(request, asked) == "csv":
        return _csv("usage", _batches(summary_csv(by, sums.data)))
    return Response(
        UsageList(by=by, since_ms=sums.since_ms, until_ms=sums.until_ms, data=sums.data)
    )


@get("/usage/rows")
async def list_calls(request: Request[Any, Any, Any]) -> Response[Any]:
    """Single calls, newest first; those whose cost is to come are pending."""
    asked = query_of(request, UsageRowsQuery)
    filters, log = await filters_of(request, asked), services_of(request).usage
    since_ms, until_ms = _range(asked)
    before = END if until_ms is None else (until_ms, "")
    if asked.cursor is not None:
        before = min(before, _position(asked.cursor))
    if _format(request, asked) == "csv":
        return _csv("calls", _pages(log, filters, since_ms, before, asked.limit))
    limit = asked.limit or ROWS_PER_PAGE
    found = await log.rows(limit, filters=filters, since_ms=since_ms, before=before)
    return Response(
        UsageRowList(data=found, next_cursor=cursor_of(found) if len(found) == limit else None)
    )


def groupings(text: str) -> list[Grouping]:
    """The groupings of a comma list. Raises InvalidRequest."""
    names = text.split(",")
    found = [grouping for name in names for grouping in GROUPINGS if name.strip() == grouping]
    if len(found) != len(names) or len(set(found)) != len(found):
        raise InvalidRequest(
            f"'by' is one or more of {', '.join(GROUPINGS)}, each once, with commas between them"
            f" (found {text!a}).",
            param="by",
        )
    return found


def cursor_of(calls: Sequence[UsageCall]) -> str:
    """Where the page after these calls begins."""
    return f"{calls[-1].at_ms}-{calls[-1].call_id}"


def moment_ms(text: str, param: str) -> int:
    """Milliseconds of an ISO 8601 date or date and time; UTC unless it names a zone."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{param!r} is a date such as 2026-01-31 or a time such as 2026-01-31T12:00:00Z, in"
            f" UTC unless it names a zone (found {text!a}).",
            param=param,
        ) from error
    return (
        since_epoch.days * 86_400_000
        + since_epoch.seconds * 1000
        + since_epoch.microseconds // 1000
    )


def _range(asked: UsageAsked) -> tuple[int, int | None]:
    since_ms = moment_ms(asked.since, "since") if asked.since else 0
    return since_ms, moment_ms(asked.until, "until") if asked.until else None


def _position(cursor: str) -> Position:
    at_ms, _, call_id = cursor.partition("-")
    return int(at_ms), call_id


def _format(request: Request[Any, Any, Any], asked: UsageAsked) -> Format:
    if asked.format is not None:
        return asked.format
    accepted = request.accept.best_match(list(_MEDIA_TYPES.values()), "application/json")
    return next(known for known, media_type in _MEDIA_TYPES.items() if media_type == accepted)


def _csv(name: str, lines: AsyncIterator[str]) -> Stream:
    return Stream(
        lines,
        media_type="text/csv",
        headers={
            "content-disposition": f'attachment; filename="{name}.csv"',
            "x-content-type-options": "nosniff",
        },
    )


async def _batches(lines: Iterator[str]) -> AsyncIterator[str]:
    """Many lines in one message."""
    while batch := "".join(islice(lines, LINES_PER_MESSAGE)):
        yield batch


async def _pages(
    log: UsageLog, filters: Filters, since_ms: int, before: Position, limit: int | None
) -> AsyncIterator[str]:
    """The whole file, a page at a time: however long it is, little of it is in memory."""
    yield calls_header()
    size = PAGE_MAX if limit is None else limit
    while True:
        page = await log.rows(size, filters=filters, since_ms=since_ms, before=before)
        yield "".join(calls_csv(page))
        if limit is not None or len(page) < size:
            return
        before = page[-1].at_ms, page[-1].call_id
