"""What a key has spent, and what a payer was given and has spent in all."""

from datetime import UTC, datetime

import msgspec

from app.clock import DAY_MS, Clock, month_ms, period_of
from app.errors import PermissionDenied
from app.storage.database import Database


class Spent(msgspec.Struct, frozen=True):
    """Nano-USD: ever, and in this UTC day, week (from Monday) and month."""

    ever: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0


class KeySpending(msgspec.Struct, frozen=True, kw_only=True):
    """A key's use. ``limit_nano_usd`` is its monthly spending limit; ``left`` what remains of it.

    ``byok`` is what calls with the user's own provider keys cost here, which is nothing.
    """

    label: str
    user_id: str
    spent: Spent
    byok: Spent
    limit_nano_usd: int | None
    left_nano_usd: int | None


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """All credit that a payer was ever given, without what expired, and what was spent of it."""

    credits_nano_usd: int
    usage_nano_usd: int


_KEY = "SELECT prefix, user_id FROM api_keys WHERE id = ?"
_SPENT = """
SELECT s.byok, sum(d.cost_nano_usd),
       sum(CASE WHEN d.day >= ? THEN d.cost_nano_usd ELSE 0 END),
       sum(CASE WHEN d.day >= ? THEN d.cost_nano_usd ELSE 0 END),
       sum(CASE WHEN d.day >= ? THEN d.cost_nano_usd ELSE 0 END)
FROM series s JOIN usage_days d ON d.series_id = s.id WHERE s.key_id = ? GROUP BY s.byok
"""
_LIMIT = """
SELECT l.amount_nano_usd, m.posted_nano_usd, m.held_nano_usd,
       (SELECT coalesce(sum(h.amount_nano_usd), 0) FROM holds h
        WHERE h.key_id = l.subject_id AND h.period = ?)
FROM spending_limits l LEFT JOIN limit_months m ON m.scope = l.scope
AND m.subject_id = l.subject_id AND m.period = ? AND m.set_at_ms = l.set_at_ms
WHERE l.scope = 'key' AND l.subject_id = ?
"""
_TOTALS = """
SELECT coalesce(sum(granted_nano_usd - expired_nano_usd), 0), coalesce(sum(spent_nano_usd), 0)
FROM grants WHERE payer_id = ?
"""
_PAID_FOR = """
SELECT EXISTS (SELECT 1 FROM grants WHERE payer_id = ? AND kind = 'purchased')
    OR EXISTS (SELECT 1 FROM members m JOIN orgs o ON o.id = m.org_id
               WHERE m.user_id = ? AND o.default_payer = 1)
"""


class Spending:
    """Sums of what was spent. Each costs its own key's or payer's rows, not those of others."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def of_key(self, key_id: str) -> KeySpending:
        """A key's use and limit. Raises PermissionDenied for who has no key: the command line."""
        found = await self._database.read(_KEY, (key_id,))
        if not found:
            raise PermissionDenied(
                "This tells about the API key it is asked with: ask with a user's key."
            )
        prefix, user_id = found[0]
        now_ms = self._clock.now_ms()
        today = now_ms // DAY_MS
        monday = today - datetime.fromtimestamp(now_ms // 1000, UTC).weekday()
        period = period_of(now_ms)
        first = month_ms(period)[0] // DAY_MS
        rows = await self._database.read(_SPENT, (today, monday, first, key_id))
        by_byok = {byok: Spent(*sums) for byok, *sums in rows}
        spent = by_byok.get(0, Spent())
        limit, left = await self._limit(key_id, period, spent.monthly)
        return KeySpending(
            label=f"tp_{prefix}...",
            user_id=user_id,
            spent=spent,
            byok=by_byok.get(1, Spent()),
            limit_nano_usd=limit,
            left_nano_usd=left,
        )

    async def _limit(
        self, key_id: str, period: str, used_nano_usd: int
    ) -> tuple[int | None, int | None]:
        """The key's limit and what is left of it; what no call has met yet counts from use."""
        found = await self._database.read(_LIMIT, (period, period, key_id))
        if not found:
            return None, None
        amount, posted, held, open_holds = found[0]
        taken = used_nano_usd + open_holds if posted is None else posted + held
        return amount, max(amount - taken, 0)

    async def totals(self, payer_id: str) -> Totals:
        """The difference is the credit that is left."""
        ((given, spent),) = await self._database.read(_TOTALS, (payer_id,))
        return Totals(credits_nano_usd=given, usage_nano_usd=spent)

    async def is_paid_for(self, user_id: str) -> bool:
        """Whether credit was ever bought for a user, or an org pays by default."""
        ((paid,),) = await self._database.read(_PAID_FOR, (user_id, user_id))
        return bool(paid)
