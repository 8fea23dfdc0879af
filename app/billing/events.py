"""What operators and admins want to hear of: a credit or a limit is nearly, or wholly, used up.

The ledger writes an event in the transaction that crosses the line, once per kind, subject and
month. The rows are also the webhook's queue: a restart loses nothing and repeats at most what was
under way. An event is tried for three days from when it happened and stays on record for good.
"""

from datetime import UTC, datetime, timedelta

import msgspec

from app.billing.subjects import SUBJECT_COLUMNS, SUBJECT_JOINS
from app.storage.database import Database, Row, Transaction

EVENTS_MAX = 1000
TRIED_MS_MAX = 3 * 86_400_000
_NEVER_MS = 2**62
"""``next_try_at_ms`` of an event that is not tried any more."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One crossing. ``amount_nano_usd`` is what was used of ``limit_nano_usd`` at that moment.

    ``payer`` answers for the subject: the org of a member or group, the user of a key. A payer that
    is gone has empty names.
    """

    id: int
    at_ms: int
    kind: str
    scope: str
    subject_id: str
    subject_name: str
    payer_id: str
    payer_name: str
    period: str
    amount_nano_usd: int
    limit_nano_usd: int
    attempts: int
    delivered_at_ms: int | None
    given_up: bool

    @property
    def at(self) -> str:
        """When it happened, as ISO 8601 in UTC."""
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.at_ms)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_COLUMNS = """
SELECT t.id, t.at_ms, t.kind, t.scope, t.subject_id, t.period, t.amount_nano_usd, t.limit_nano_usd,
       t.attempts, t.delivered_at_ms, t.next_try_at_ms,
"""
_FROM_EVENTS = "FROM events t"
_PAGE = "WHERE t.id < ? ORDER BY t.id DESC LIMIT ?"
_PAGE_OF_ORG = """
WHERE t.id < ? AND o.id = ? ORDER BY t.id DESC LIMIT ?
"""
# The first of each subject that waits: what happened later to the same subject comes later.
_FROM_WAITING = """
FROM (
    SELECT *, row_number() OVER (PARTITION BY scope, subject_id ORDER BY id) AS place
    FROM events WHERE delivered_at_ms IS NULL AND next_try_at_ms < 4611686018427387904
) t
"""
_DUE = "WHERE t.place = 1 AND t.next_try_at_ms <= ? ORDER BY t.id LIMIT ?"

_SQL_PAGE = "\n".join((_COLUMNS, SUBJECT_COLUMNS, _FROM_EVENTS, SUBJECT_JOINS, _PAGE))
_SQL_PAGE_OF_ORG = "\n".join((_COLUMNS, SUBJECT_COLUMNS, _FROM_EVENTS, SUBJECT_JOINS, _PAGE_OF_ORG))
_SQL_DUE = "\n".join((_COLUMNS, SUBJECT_COLUMNS, _FROM_WAITING, SUBJECT_JOINS, _DUE))


class EventLog:
    """The events table: read by people, worked off by the webhook's job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(
        self, *, org_id: str | None = None, before: int | None = None, limit: int = EVENTS_MAX
    ) -> list[Event]:
        """Up to ``limit`` events, newest first, from before an id; of one org and what is its."""
        first, most = before or _NEVER_MS, min(limit, EVENTS_MAX)
        if org_id is None:
            rows = await self._database.read(_SQL_PAGE, (first, most))
        else:
            rows = await self._database.read(_SQL_PAGE_OF_ORG, (first, org_id, most))
        return [_event(row) for row in rows]

    async def due(self, now_ms: int, limit: int) -> list[Event]:
        """Events to send now, oldest first: at most one of each subject, the first that waits."""
        return [_event(row) for row in await self._database.read(_SQL_DUE, (now_ms, limit))]

    async def delivered(self, event: Event, now_ms: int) -> None:
        """The receiver took it."""

        def unit(tx: Transaction) -> None:
            tx.execute(
                "UPDATE events SET delivered_at_ms = ?, attempts = attempts + 1"
                " WHERE id = ? AND delivered_at_ms IS NULL",
                (now_ms, event.id),
            )

        await self._database.write(unit)

    async def failed(self, event: Event, next_try_at_ms: int) -> bool:
        """It was not taken: try again then, or never where that is too late. Whether ever."""
        again = next_try_at_ms <= event.at_ms + TRIED_MS_MAX

        def unit(tx: Transaction) -> None:
            tx.execute(
                "UPDATE events SET next_try_at_ms = ?, attempts = attempts + 1"
                " WHERE id = ? AND delivered_at_ms IS NULL",
                (next_try_at_ms if again else _NEVER_MS, event.id),
            )

        await self._database.write(unit)
        return again

    async def give_up(self, now_ms: int) -> int:
        """Stop trying what is too old (nobody was there to take it, or nothing ran); how many."""
        sql = (
            "SELECT count(*) FROM events WHERE delivered_at_ms IS NULL AND next_try_at_ms < ?"
            " AND at_ms < ?"
        )
        since_ms = now_ms - TRIED_MS_MAX
        ((late,),) = await self._database.read(sql, (_NEVER_MS, since_ms))
        if not late:  # as nearly always: spare the write
            return 0

        def unit(tx: Transaction) -> int:
            return len(
                tx.execute(
                    "UPDATE events SET next_try_at_ms = ? WHERE delivered_at_ms IS NULL"
                    " AND next_try_at_ms < ? AND at_ms < ? RETURNING id",
                    (_NEVER_MS, _NEVER_MS, since_ms),
                )
            )

        return await self._database.write(unit)


def _event(row: Row) -> Event:
    return Event(
        id=row[0],
        at_ms=row[1],
        kind=row[2],
        scope=row[3],
        subject_id=row[4],
        period=row[5],
        amount_nano_usd=row[6],
        limit_nano_usd=row[7],
        attempts=row[8],
        delivered_at_ms=row[9],
        given_up=row[9] is None and row[10] == _NEVER_MS,
        subject_name=row[11],
        payer_id=row[12],
        payer_name=row[13],
    )
