"""What the books say about a month of payers, in the form that one statement can ask.

Each part of a question is a query whose rows come back as JSON arrays under the part's name. So one
statement, which sees one moment, answers several parts, on a read-only connection as well as in a
write unit.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from app.clock import DAY_MS, month_ms
from app.ledger.accounts import HouseAccount
from app.ledger.usage_rows import SUMMED
from app.storage.database import Database, Row

T = TypeVar("T")
_HOUSE_MAX = max(HouseAccount)  # payers' accounts are numbered behind the house's

MEASURED = tuple(name for name in SUMMED if name not in {"calls", "cost_nano_usd"})
"""What calls are measured in. A provider may report any number of 64 bits, and a sum that leaves
them fails: so upper and lower halves are summed up apart."""
_HALVES = ", ".join(f"{name}_h, {name}_l" for name in MEASURED)
_SUMS = ", ".join(
    f"sum(d.{name} >> 32) AS {name}_h, sum(d.{name} & 4294967295) AS {name}_l" for name in MEASURED
)


# Parameters: ?1 the payer (the first of a range), ?2 the last of the range, ?3 the period, ?4 its
# first day and ?5 the day behind it (from 1970), ?6 the first entry that may be in it, ?7 whether
# there were endpoints. An entry's account here is the payer's; those within the house have
# none. Entries of later months are told apart: what is left of a grant is that of the month's end.
def _entries(of: str) -> tuple[str, str]:
    """The month's entries with an account that meets the condition, summed up."""
    return (
        "owner_id, account_id, kind, taken, later, amount",
        f"""
        SELECT a.owner_id, f.* FROM (
            SELECT CASE WHEN debit_account_id > {_HOUSE_MAX} THEN debit_account_id
                        ELSE credit_account_id END AS account_id,
                   kind, debit_account_id > {_HOUSE_MAX} AS taken, period > ?3 AS later,
                   sum(amount_nano_usd) AS amount
            FROM entries
            WHERE seq >= ?6 AND period >= ?3
            AND (debit_account_id {of} OR credit_account_id {of})
            GROUP BY 1, 2, 3, 4
        ) f JOIN accounts a ON a.id = f.account_id
        WHERE a.owner_id BETWEEN ?1 AND ?2
        """,  # noqa: S608
    )


_ALL = {"entry": _entries(f"> {_HOUSE_MAX}")}
# Of one payer: without a sum for everybody.
_OWN = {"entry": _entries("IN (SELECT id FROM accounts WHERE owner_id = ?1)")}
_GRANTS = {
    "grant": (
        "payer_id, id, kind, reference, note, account_id, starts_at_ms, expires_at_ms,"
        " granted_nano_usd - spent_nano_usd - expired_nano_usd",
        """
        SELECT * FROM grants WHERE payer_id BETWEEN ?1 AND ?2
        AND (closed = 0 OR expires_at_ms IS NULL OR expires_at_ms > ?4 * 86400000) ORDER BY id
        """,
    ),
}
_BOOKS = {
    "payer": (
        "id, name, kind, tier, seats",
        """
        SELECT id, name, 'user' AS kind, tier, 1 AS seats FROM users WHERE id = ?1
        UNION ALL SELECT id, name, 'org', tier, seats FROM orgs WHERE id = ?1
        """,
    ),
    "usage": (
        f"provider, model, calls, byok, {_HALVES}, cost",
        f"""
        SELECT s.provider, s.model, sum(d.calls) AS calls, sum(s.byok * d.calls) AS byok,
               {_SUMS}, sum(d.cost_nano_usd) AS cost
        FROM series s JOIN usage_days d ON d.series_id = s.id AND d.day >= ?4 AND d.day < ?5
        WHERE s.payer_id = ?1 GROUP BY s.provider, s.model ORDER BY s.provider, s.model
        """,  # noqa: S608
    ),
    "due": (
        "kind, account_id, amount_nano_usd",
        "SELECT * FROM dues WHERE payer_id = ?1 AND period = ?3",
    ),
    "endpoint": (
        "endpoint_id, minutes, amount",
        """
        SELECT endpoint_id, count(*) AS minutes, sum(amount_nano_usd) AS amount
        FROM endpoint_minutes
        WHERE ?7 AND payer_id = ?1 AND period = ?3
        GROUP BY endpoint_id ORDER BY endpoint_id
        """,
    ),
    "adjustment": (
        "id, at_ms, reason, amount_nano_usd",
        "SELECT * FROM adjustments WHERE payer_id = ?1 AND period = ?3 ORDER BY at_ms, id",
    ),
    "hold": ("1", "SELECT 1 FROM holds WHERE payer_id = ?1 AND period = ?3 LIMIT 1"),
}


def _statement(parts: Mapping[str, tuple[str, str]]) -> str:
    return " UNION ALL ".join(
        f"SELECT '{name}', json_array({columns}) FROM ({sql})"  # noqa: S608
        for name, (columns, sql) in parts.items()
    )


JOURNAL = _statement({**_ALL, **_GRANTS})
OWN_JOURNAL = _statement({**_OWN, **_GRANTS})
BOOKS = _statement(_BOOKS)
OWN = _statement({**_OWN, **_GRANTS, **_BOOKS})


class Moved(msgspec.Struct, frozen=True, array_like=True):
    """What entries of one kind moved out of a payer's account (``taken``) or into it."""

    payer_id: str
    account_id: int
    kind: str
    taken: int
    later: int
    amount: int


class GrantFact(msgspec.Struct, frozen=True, array_like=True):
    """A grant, and what is left of it now."""

    payer_id: str
    id: int
    kind: str
    reference: str
    note: str
    account_id: int
    starts_at_ms: int
    expires_at_ms: int | None
    left: int


class DueFact(msgspec.Struct, frozen=True, array_like=True):
    """What a payer owes of a kind for the month, as it is kept beside the journal."""

    kind: str
    account_id: int
    amount: int


class JournalFacts(msgspec.Struct, frozen=True):
    """A payer's month in the journal, and the payer's grants, of one moment."""

    moved: list[Moved]
    grants: list[GrantFact]


class BookFacts(msgspec.Struct, frozen=True):
    """What other tables say about a payer's month. Rows are in the order of the columns above."""

    payer: list[list[Any]]
    usage: list[list[Any]]
    dues: list[DueFact]
    endpoints: list[list[Any]]
    adjustments: list[list[Any]]
    open_holds: bool


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A month, and the first entry that may belong to it."""

    period: str
    first_seq: int

    def of_range(self, first: str, last: str) -> Sequence[Any]:
        """The parameters of ``JOURNAL``; of one payer alone, those of ``OWN_JOURNAL`` too."""
        starts_ms, ends_ms = month_ms(self.period)
        days = (starts_ms // DAY_MS, ends_ms // DAY_MS)
        return (first, last, self.period, *days, self.first_seq)

    def of_payer(self, payer_id: str, *, endpoints: bool) -> Sequence[Any]:
        """The parameters of ``BOOKS`` and ``OWN``. Without ``endpoints`` their minutes, which are
        many and nobody's in particular, are not looked at."""
        return (*self.of_range(payer_id, payer_id), int(endpoints))


def journal_facts(rows: Sequence[Row]) -> dict[str, JournalFacts]:
    """The journal's part of an answer, by payer: those with entries or grants."""
    found: defaultdict[str, JournalFacts] = defaultdict(lambda: JournalFacts([], []))
    for fact in _parts(rows, "entry", Moved):
        found[fact.payer_id].moved.append(fact)
    for grant in _parts(rows, "grant", GrantFact):
        found[grant.payer_id].grants.append(grant)
    return found


def book_facts(rows: Sequence[Row]) -> BookFacts:
    """The other part of an answer."""
    return BookFacts(
        payer=_parts(rows, "payer", list[Any]),
        usage=_parts(rows, "usage", list[Any]),
        dues=_parts(rows, "due", DueFact),
        endpoints=_parts(rows, "endpoint", list[Any]),
        adjustments=_parts(rows, "adjustment", list[Any]),
        open_holds=bool(_parts(rows, "hold", list[Any])),
    )


async def first_seq_of(database: Database, period: str) -> int:
    """The first entry that may belong to a month.

    Entries lie in the order of ledger time, and none is older than its month: bisection finds the
    place. A day more than needed, should an old database have entries that are out of order.
    """
    since_ms = month_ms(period)[0] - DAY_MS
    ((last,),) = await database.read("SELECT coalesce(max(seq), 0) FROM entries")
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        rows = await database.read("SELECT at_ms FROM entries WHERE seq = ?", (middle,))
        if rows and rows[0][0] < since_ms:
            low = middle + 1
        else:
            high = middle
    return low


def _parts(rows: Sequence[Row], name: str, kind: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(kind)
    return [decoder.decode(values) for part, values in rows if part == name]
