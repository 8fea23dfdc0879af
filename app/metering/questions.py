"""Turns a question about usage into one SQL statement over the sums that are kept.

What a caller sends chooses among the fragments here and is bound; none of it becomes part of a
statement. Each cut of the range gives rows of the groups asked for, and the sum over all cuts is
the answer.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from app.ledger.usage_rows import SUMMED
from app.metering.rollup import Cut, Level

Grouping = Literal["model", "provider", "key", "user", "org", "group", "day", "outcome"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Only these calls; None is any. Ids but for model, provider and outcome, which are names."""

    user_id: str | None = None
    key_id: str | None = None
    payer_id: str | None = None
    group_id: str | None = None
    model: str | None = None
    provider: str | None = None
    outcome: str | None = None

    def given(self) -> dict[str, str]:
        """Columns of ``series`` and the values that they shall have."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value}


class Question(NamedTuple):
    """A statement and its parameters."""

    sql: str
    params: list[Any]


class _Group(NamedTuple):
    """The column that a grouping is by, and what names its value for people."""

    column: str
    label: str
    join: str = ""


_GROUPS: Mapping[Grouping, _Group] = {
    "model": _Group("model", "NULL"),
    "provider": _Group("provider", "NULL"),
    "outcome": _Group("outcome", "NULL"),
    "day": _Group("day", "NULL"),
    "key": _Group(
        "key_id",
        "k.name || ' (tp_' || k.prefix || '…)'",
        "LEFT JOIN api_keys k ON k.id = r.key_id",
    ),
    "user": _Group("user_id", "u.name", "LEFT JOIN users u ON u.id = r.user_id"),
    "org": _Group(
        "payer_id",
        "coalesce(o.name, p.name)",
        "LEFT JOIN orgs o ON o.id = r.payer_id LEFT JOIN users p ON p.id = r.payer_id",
    ),
    "group": _Group(
        "group_id",
        "go.name || '/' || g.name",
        "LEFT JOIN resource_groups g ON g.id = r.group_id LEFT JOIN orgs go ON go.id = g.org_id",
    ),
}
_OF_OFFER = frozenset({"model", "provider", "outcome"})
_OF_PARTY = frozenset({"user_id", "key_id", "payer_id", "group_id"})
_COUNTED = SUMMED[1:]


# Series of one kind: a condition on ``series s``.
_FINE = "s.party_id <> 0"
_COARSE = "s.coarse_id = s.id"
_PARTY = "s.coarse_id = 0"


def may_use_months(by: Collection[Grouping], filters: Filters) -> bool:
    """Whether months are of use: not for days one by one, nor where fewer series answer."""
    return "day" not in by and _family(by, filters) == _FINE


def question(
    by: Sequence[Grouping],
    cuts: Sequence[Cut],
    filters: Filters,
    *,
    sealed_sums: str = "[]",
    limit: int,
) -> Question:
    """Sums of the calls in ``cuts``, by group: days in order, then dearest first.

    A row has the groups, their labels, and the sums in the order of ``SUMMED``. ``sealed_sums`` is
    JSON: what calls outside the table add up to, as [series_id, day, sign, *SUMMED].
    """
    columns = [_GROUPS[grouping].column for grouping in by]
    family = _family(by, filters)
    parts: list[str] = []
    params: list[Any] = []
    for cut in cuts:
        part = _part(cut, columns, family, filters)
        parts.append(part.sql)
        params += part.params
    sealed = _sealed(columns, filters, sealed_sums)
    parts.append(sealed.sql)
    params += sealed.params
    grouped = ", ".join(columns)
    sums = ", ".join(f"sum({name}) AS {name}" for name in SUMMED)
    labels = ", ".join(_GROUPS[grouping].label for grouping in by)
    joins = " ".join(_GROUPS[grouping].join for grouping in by)
    order = ", ".join(
        [
            *(["r.day"] if "day" in by else []),
            "r.cost_nano_usd DESC, r.calls DESC",
            *(f"r.{column}" for column in columns),
        ]
    )
    kept = ", ".join(f"r.{name}" for name in (*columns, *SUMMED))
    sql = (
        f"SELECT {labels}, {kept} FROM (SELECT {grouped}, {sums}"  # noqa: S608
        f" FROM ({' UNION ALL '.join(parts)}) GROUP BY {grouped} HAVING sum(calls) > 0) r"
        f" {joins} ORDER BY {order} LIMIT ?"
    )
    return Question(sql, [*params, limit])


def _family(by: Collection[Grouping], filters: Filters) -> str:
    """The fewest series that tell apart what is asked."""
    columns = {_GROUPS[grouping].column for grouping in by}
    if columns | filters.given().keys() <= _OF_OFFER | {"day"}:
        return _COARSE
    if columns | filters.given().keys() <= _OF_PARTY:
        return _PARTY
    return _FINE


def _part(cut: Cut, columns: Sequence[str], family: str, filters: Filters) -> Question:
    if cut.level is Level.CALLS:
        return _calls(cut, columns, filters)
    if cut.level is Level.HOURS:
        return _hours(cut, columns, family, filters)
    if family == _PARTY:
        return _parties(cut, columns, filters)
    table, unit = ("usage_months", "month") if cut.level is Level.MONTHS else ("usage_days", "day")
    condition, params = _where(family, filters)
    by_day = ", t.day" if "day" in columns else ""
    sql = (
        f"SELECT {_groups(columns, 't.day')}, {_sums(cut, 'sum(t.{})')}"  # noqa: S608
        f" FROM series s CROSS JOIN {table} t ON t.series_id = s.id"
        f" WHERE {condition} AND t.{unit} >= ? AND t.{unit} < ? GROUP BY s.id{by_day}"
    )
    return Question(sql, [*params, cut.start, cut.end])


def _parties(cut: Cut, columns: Sequence[str], filters: Filters) -> Question:
    """Days of parties are the difference of what they had used before and after."""
    condition, params = _where(_PARTY, filters)
    before = "(SELECT max(day) FROM usage_parties WHERE party_id = s.id AND day < ?)"
    sql = (
        f"SELECT {_groups(columns, '0')}, {_sums(cut, 'b.{0} - coalesce(a.{0}, 0)')}"  # noqa: S608
        f" FROM series s CROSS JOIN usage_parties b ON b.party_id = s.id AND b.day = {before}"
        f" LEFT JOIN usage_parties a ON a.party_id = s.id AND a.day = {before}"
        f" WHERE {condition}"
    )
    return Question(sql, [cut.end, cut.start, *params])


def _hours(cut: Cut, columns: Sequence[str], family: str, filters: Filters) -> Question:
    """Hours of parties are those of their series."""
    coarse = family == _COARSE
    condition, params = _where(_COARSE if coarse else _FINE, filters)
    groups = _groups(columns, "t.hour / 24")
    sums = _sums(cut, "t.{}")
    if coarse:
        sql = (
            f"SELECT {groups}, {sums} FROM json_each(?) h CROSS JOIN series s"  # noqa: S608
            f" CROSS JOIN usage_hours t ON t.hour = h.value AND t.series_id = s.id"
            f" WHERE {condition}"
        )
        hours = msgspec.json.encode(list(range(cut.start, cut.end))).decode()
        return Question(sql, [hours, *params])
    sql = (
        f"SELECT {groups}, {sums} FROM usage_hours t CROSS JOIN series s"  # noqa: S608
        f" ON s.id = t.series_id WHERE t.hour >= ? AND t.hour < ? AND {condition}"
    )
    return Question(sql, [cut.start, cut.end, *params])


def _calls(cut: Cut, columns: Sequence[str], filters: Filters) -> Question:
    condition, params = _where(_FINE, filters)
    sign = _sign(cut)
    sums = ", ".join([f"{sign}1 AS calls", *(f"{sign}t.{name} AS {name}" for name in _COUNTED)])
    sql = (
        f"SELECT {_groups(columns, 't.at_ms / 86400000')}, {sums}"  # noqa: S608
        f" FROM usage t CROSS JOIN series s ON s.id = t.series_id"
        f" WHERE t.at_ms >= ? AND t.at_ms < ? AND {condition}"
    )
    return Question(sql, [cut.start, cut.end, *params])


def _sealed(columns: Sequence[str], filters: Filters, sealed_sums: str) -> Question:
    condition, params = _where(_FINE, filters)
    sums = ", ".join(
        f"json_extract(j.value, '$[2]') * json_extract(j.value, '$[{at}]') AS {name}"
        for at, name in enumerate(SUMMED, start=3)
    )
    sql = (
        f"SELECT {_groups(columns, _SEALED_DAY)}, {sums} FROM json_each(?) j"  # noqa: S608
        f" CROSS JOIN series s ON s.id = json_extract(j.value, '$[0]') WHERE {condition}"
    )
    return Question(sql, [sealed_sums, *params])


_SEALED_DAY = "json_extract(j.value, '$[1]')"


def _where(family: str, filters: Filters) -> tuple[str, list[Any]]:
    given = filters.given()
    conditions = [family, *(f"s.{column} = ?" for column in given)]
    return " AND ".join(conditions), list(given.values())


def _groups(columns: Sequence[str], day: str) -> str:
    return ", ".join(
        f"{day} AS day" if column == "day" else f"s.{column} AS {column}" for column in columns
    )


def _sums(cut: Cut, form: str) -> str:
    return ", ".join(f"{_sign(cut)}({form.format(name)}) AS {name}" for name in SUMMED)


def _sign(cut: Cut) -> str:
    return "" if cut.sign > 0 else "-"
