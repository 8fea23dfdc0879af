"""What a payer sees: credit, what is used, held and owed, the limits, and where the month will end.

Amounts are nano-USD. The money comes from the ledger's own balance, use from the sums per day that
are written in the transactions that charge; between the two a call may end.
"""

from datetime import UTC, datetime

import msgspec

from app.billing.payers import Payer
from app.billing.subjects import SUBJECT_COLUMNS, SUBJECT_JOINS
from app.clock import DAY_MS, Clock, month_ms
from app.ledger.entries import Balance, Grant
from app.ledger.store import LedgerStore
from app.ledger.usage_rows import SCOPES, subject_of
from app.storage.database import Database, Row


class GrantLine(msgspec.Struct, frozen=True, kw_only=True):
    """Credit that can be spent now."""

    id: int
    kind: str
    reference: str
    note: str
    expires_at_ms: int | None
    granted_nano_usd: int
    spent_nano_usd: int
    left_nano_usd: int


class LimitLine(msgspec.Struct, frozen=True, kw_only=True):
    """A spending limit of this month: how much of ``amount`` is used, held by open calls, left."""

    scope: str
    subject_id: str
    subject_name: str
    amount_nano_usd: int
    used_nano_usd: int
    held_nano_usd: int
    left_nano_usd: int


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """Calls that ended and whose provider has yet to say what they cost: part of what is held."""

    calls: int
    held_nano_usd: int


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """A payer's month.

    ``credit`` is what is left of ``grants``, which stand in the order they are spent in.
    ``available`` is what a new call can hold; None where nothing bounds it. ``used`` is what this
    month's calls cost, ``overage`` the part of it past the credit; ``due`` what the month will be
    billed as things are: overage, the tier's fee, endpoints. ``projected`` is what this month's
    calls will have cost at its end, see ``projection``. The month ends, in UTC, at ``resets_at``.
    """

    payer: Payer
    tier: str
    period: str
    resets_at_ms: int
    resets_at: str
    credit_nano_usd: int
    held_nano_usd: int
    available_nano_usd: int | None
    used_nano_usd: int
    overage_nano_usd: int
    overage_limit_nano_usd: int | None
    fee_nano_usd: int
    endpoints_nano_usd: int
    due_nano_usd: int
    projected_nano_usd: int | None
    pending: Pending
    grants: list[GrantLine]
    limits: list[LimitLine]


class Viewer(msgspec.Struct, frozen=True):
    """Who looks. Of an org, ``all_limits`` shows those of every member and group."""

    user_id: str
    all_limits: bool


_USED = """
SELECT coalesce(sum(d.cost_nano_usd), 0) FROM series s JOIN usage_days d ON d.series_id = s.id
WHERE d.day >= ? AND d.day < ? AND
"""
_HELD = "SELECT coalesce(sum(s.amount_nano_usd), 0) FROM holds s WHERE s.period = ? AND "
_USED_BY = {scope: _USED + condition for scope, condition in SCOPES.items()}
_HELD_BY = {scope: _HELD + condition for scope, condition in SCOPES.items()}
_PENDING = """
SELECT count(*), coalesce(sum(h.amount_nano_usd), 0)
FROM pending_costs p JOIN holds h ON h.call_id = p.call_id WHERE h.payer_id = ?
"""
_DUES = "SELECT kind, amount_nano_usd FROM dues WHERE payer_id = ? AND period = ?"
# A month that was counted for an earlier limit of the subject says nothing about this one.
_LIMITS = """
SELECT t.scope, t.subject_id, t.amount_nano_usd, m.posted_nano_usd, m.held_nano_usd,
"""
_FROM_LIMITS = """
FROM spending_limits t LEFT JOIN limit_months m ON m.scope = t.scope
AND m.subject_id = t.subject_id AND m.period = ? AND m.set_at_ms = t.set_at_ms
"""
_OF_USER = """
WHERE (t.scope IN ('payer', 'user') AND t.subject_id = ?)
OR (t.scope = 'key' AND t.subject_id IN (SELECT id FROM api_keys WHERE user_id = ?))
ORDER BY t.scope DESC, t.subject_id
"""
_OF_ORG = """
WHERE (t.scope = 'payer' AND t.subject_id = ?)
OR (t.scope = 'member' AND substr(t.subject_id, 1, length(?) + 1) = ? || '/')
OR (t.scope = 'group' AND t.subject_id IN (SELECT id FROM resource_groups WHERE org_id = ?))
ORDER BY t.scope DESC, t.subject_id
"""
_OF_MEMBER = """
WHERE (t.scope = 'payer' AND t.subject_id = ?)
OR (t.scope = 'member' AND t.subject_id = ? || '/' || ?)
OR (t.scope = 'group' AND t.subject_id IN (
    SELECT r.id FROM resource_groups r JOIN group_members b ON b.group_id = r.id
    WHERE r.org_id = ? AND b.user_id = ?))
ORDER BY t.scope DESC, t.subject_id
"""
_SQL_OF_USER = "\n".join((_LIMITS, SUBJECT_COLUMNS, _FROM_LIMITS, SUBJECT_JOINS, _OF_USER))
_SQL_OF_ORG = "\n".join((_LIMITS, SUBJECT_COLUMNS, _FROM_LIMITS, SUBJECT_JOINS, _OF_ORG))
_SQL_OF_MEMBER = "\n".join((_LIMITS, SUBJECT_COLUMNS, _FROM_LIMITS, SUBJECT_JOINS, _OF_MEMBER))


class Overviews:
    """Makes them."""

    def __init__(self, database: Database, ledger: LedgerStore, clock: Clock) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock

    async def of(self, payer: Payer, viewer: Viewer) -> Overview:
        """The payer's month as it is now, after booking what it lacks. Raises NotFound."""
        balance = await self._ledger.balance(payer.id)
        period = balance.period
        begin_ms, end_ms = month_ms(period)
        used = await self._sum("payer", payer.id, period)
        ((calls, pending),) = await self._database.read(_PENDING, (payer.id,))
        dues: dict[str, int] = dict(await self._database.read(_DUES, (payer.id, period)))
        terms = balance.terms
        return Overview(
            payer=payer,
            tier=terms.tier,
            period=period,
            resets_at_ms=end_ms,
            resets_at=datetime.fromtimestamp(end_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            credit_nano_usd=balance.credit_nano_usd,
            held_nano_usd=balance.held_nano_usd,
            available_nano_usd=available(balance),
            used_nano_usd=used,
            overage_nano_usd=balance.overage_nano_usd,
            overage_limit_nano_usd=terms.overage_limit_nano_usd,
            fee_nano_usd=dues.get("fee", 0),
            endpoints_nano_usd=dues.get("endpoint", 0),
            due_nano_usd=sum(dues.values()),
            projected_nano_usd=projection(used, begin_ms, self._clock.now_ms(), end_ms),
            pending=Pending(calls=calls, held_nano_usd=pending),
            grants=[_grant_line(grant) for grant in balance.grants],
            limits=[
                await self._line(row, period) for row in await self._limits(payer, viewer, period)
            ],
        )

    async def _limits(self, payer: Payer, viewer: Viewer, period: str) -> list[Row]:
        if payer.kind == "user":
            return await self._database.read(_SQL_OF_USER, (period, payer.id, payer.id))
        if viewer.all_limits:
            return await self._database.read(_SQL_OF_ORG, (period, *[payer.id] * 4))
        of_org = (payer.id, payer.id, viewer.user_id, payer.id, viewer.user_id)
        return await self._database.read(_SQL_OF_MEMBER, (period, *of_org))

    async def _line(self, row: Row, period: str) -> LimitLine:
        """A limit that no call has met yet has no month: then what the ledger would start with."""
        scope, subject_id, amount, used, held, name, _, _ = row
        if used is None:
            used = await self._sum(scope, subject_id, period)
            subject = subject_of(scope, subject_id)
            ((held,),) = await self._database.read(_HELD_BY[scope], (period, *subject))
        return LimitLine(
            scope=scope,
            subject_id=subject_id,
            subject_name=name,
            amount_nano_usd=amount,
            used_nano_usd=used,
            held_nano_usd=held,
            left_nano_usd=max(amount - used - held, 0),
        )

    async def _sum(self, scope: str, subject_id: str, period: str) -> int:
        begin_ms, end_ms = month_ms(period)
        days = (begin_ms // DAY_MS, end_ms // DAY_MS)
        rows = await self._database.read(_USED_BY[scope], (*days, *subject_of(scope, subject_id)))
        return int(rows[0][0])


def _grant_line(grant: Grant) -> GrantLine:
    return GrantLine(
        id=grant.id,
        kind=grant.kind,
        reference=grant.reference,
        note=grant.note,
        expires_at_ms=grant.expires_at_ms,
        granted_nano_usd=grant.granted_nano_usd,
        spent_nano_usd=grant.spent_nano_usd,
        left_nano_usd=grant.left_nano_usd,
    )


def available(balance: Balance) -> int | None:
    """What a new call can hold; None under pay as you go without a limit."""
    terms = balance.terms
    if not terms.overage:
        return balance.available_nano_usd
    if terms.overage_limit_nano_usd is None:
        return None
    past = terms.overage_limit_nano_usd - balance.overage_nano_usd
    return max(balance.credit_nano_usd - balance.held_nano_usd + past, 0)


def projection(used_nano_usd: int, begin_ms: int, now_ms: int, end_ms: int) -> int | None:
    """What a month's calls will have cost at its end, if they go on as they did so far.

    ``used × (end - begin) ÷ (now - begin)``, rounded down, in milliseconds of UTC: never less than
    what is used, and exactly that once the month is over. None in the first 24 hours, which say too
    little.
    """
    elapsed_ms = min(now_ms, end_ms) - begin_ms
    if elapsed_ms < DAY_MS:
        return None
    return used_nano_usd * (end_ms - begin_ms) // elapsed_ms
