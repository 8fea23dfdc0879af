"""What ``/api/usage`` takes and gives, for its handlers and for its client, the CLI.

Imports no web framework. Times are milliseconds since 1970-01-01 UTC, money is nano-USD.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from app.ledger.entries import Outcome
from app.metering.calls import PAGE_MAX, UsageCall
from app.metering.questions import Grouping
from app.metering.usage import GROUPS_MAX, UsageSummary

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Moment = Annotated[str, Meta(min_length=10, max_length=40)]
Format = Literal["json", "csv"]


class UsageAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which calls: from ``since`` up to, and without, ``until``, and only those of the rest.

    The two are a date or a date and time (ISO 8601), in UTC unless they say otherwise. ``user``,
    ``org`` and ``group`` are names or ids (a group by its name needs its org), ``key`` is an id or
    the part of a key that may be seen. Without ``format``: what the Accept header prefers.
    """

    since: Moment | None = None
    until: Moment | None = None
    user: Name | None = None
    key: Name | None = None
    org: Name | None = None
    group: Name | None = None
    model: Name | None = None
    provider: Name | None = None
    outcome: Outcome | None = None
    format: Format | None = None


class UsageQuery(UsageAsked, frozen=True, kw_only=True):
    """``GET /api/usage``: sums by any groupings, with commas between them. ``limit`` keeps the
    dearest groups only."""

    by: Annotated[str, Meta(max_length=128)] = "model"
    limit: Annotated[int, Meta(ge=1, le=GROUPS_MAX)] | None = None


class UsageRowsQuery(UsageAsked, frozen=True, kw_only=True):
    """``GET /api/usage/rows``: ``limit`` calls from behind a ``cursor``, newest first. Without a
    limit a page has 100, and CSV has them all."""

    cursor: Annotated[str, Meta(pattern=r"^[0-9]{1,15}-[A-Za-z0-9_-]{0,64}\Z")] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] | None = None


class UsageList(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer of ``GET /api/usage``, and the range that it is exact for."""

    by: list[Grouping]
    since_ms: int
    until_ms: int | None
    data: list[UsageSummary]


class UsageRowList(msgspec.Struct, frozen=True, kw_only=True):
    """A page. ``next_cursor`` is the ``cursor`` of the next one, if there may be one."""

    data: list[UsageCall]
    next_cursor: str | None = None
