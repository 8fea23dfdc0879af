"""Spending limits: caps on a month's spend, set here and enforced by the ledger with each hold."""

import msgspec

from app.billing.features import require_feature
from app.billing.limit_subjects import LimitScope, Subject, find_subject
from app.billing.subjects import SUBJECT_JOINS
from app.billing.tiers import Tiers
from app.clock import Clock, period_of
from app.errors import InvalidRequest, NotFound, PermissionDenied
from app.identity.principal import Principal
from app.identity.users import PAGE_LENGTH_MAX
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from app.storage.database import Database, Row, Transaction

_SELECT = f"""
SELECT t.scope, t.subject_id, t.amount_nano_usd, coalesce(a.name, t.set_by), t.set_at_ms,
       lm.posted_nano_usd, lm.held_nano_usd, k.prefix, k.name, u.name, o.name, g.name
FROM spending_limits t
LEFT JOIN users a ON a.id = t.set_by
LEFT JOIN limit_months lm
    ON lm.scope = t.scope AND lm.subject_id = t.subject_id AND lm.period = ?
{SUBJECT_JOINS}"""  # noqa: S608 (its parts are ours)
_PAGE = f"""
{_SELECT}
LEFT JOIN members m ON m.org_id = o.id AND m.user_id = ?
WHERE (t.scope, t.subject_id) > (?, ?)
AND (? OR (t.scope IN ('key', 'user', 'payer') AND u.id = ?)
       OR (t.scope = 'payer' AND m.role IS NOT NULL)
       OR (t.scope = 'member' AND (m.role = 'admin' OR u.id = ?))
       OR (t.scope = 'group' AND (m.role = 'admin' OR EXISTS (
               SELECT 1 FROM group_members gm
               WHERE gm.group_id = g.id AND gm.user_id = m.user_id))))
ORDER BY t.scope, t.subject_id LIMIT ?
"""  # noqa: S608 (its parts are ours)
_ONE = f"{_SELECT} WHERE t.scope = ? AND t.subject_id = ?"


class SpendingLimit(msgspec.Struct, frozen=True, kw_only=True):
    """A cap on what may be spent in a UTC month, and how far this month has used it up.

    ``subject`` is what names it when it is set or removed, ``label`` what to show to people.
    ``posted_nano_usd`` and ``held_nano_usd`` are None until a call has met the limit this month.
    """

    scope: LimitScope
    subject_id: str
    subject: str
    label: str
    amount_nano_usd: int
    set_by: str
    set_at_ms: int
    posted_nano_usd: int | None = None
    held_nano_usd: int | None = None


class SpendingLimits:
    """The spending_limits table, and who may change it.

    Owners may set any limit. Users may limit their own keys; org admins may limit their org, its
    members and its resource groups where the org's tier has spending limits. What an owner has set
    only owners change.
    """

    def __init__(self, database: Database, clock: Clock, tiers: Tiers) -> None:
        self._database = database
        self._clock = clock
        self._tiers = tiers

    async def set(
        self, scope: LimitScope, subject: str, amount_nano_usd: int, by: Principal
    ) -> SpendingLimit:
        """Cap a month's spend of what ``subject`` names, see ``find_subject``; 0 stops all.

        In force from the next call on. Raises InvalidRequest, NotFound, PermissionDenied.
        """
        if not 0 <= amount_nano_usd <= AMOUNT_NANO_USD_MAX:
            raise InvalidRequest(
                f"A spending limit is 0 to {AMOUNT_NANO_USD_MAX} nano-USD.", param="amount_nano_usd"
            )
        now_ms = self._clock.now_ms()

        def upsert(tx: Transaction) -> SpendingLimit:
            found = find_subject(tx, scope, subject, by)
            _check_setter(tx, found, by)
            if found.org_tier is not None and not by.owner:
                require_feature(self._tiers, found.org_tier, "spending_limits")
            # The ledger tells one setting from the next by its time, so no two have the same.
            tx.execute(
                "INSERT INTO spending_limits"
                " (scope, subject_id, amount_nano_usd, set_by, set_at_ms)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT (scope, subject_id) DO UPDATE SET"
                " amount_nano_usd = excluded.amount_nano_usd, set_by = excluded.set_by,"
                " set_at_ms = max(excluded.set_at_ms, spending_limits.set_at_ms + 1)",
                (found.scope, found.id, amount_nano_usd, by.user_id, now_ms),
            )
            return _one(tx, found, now_ms)

        return await self._database.write(upsert)

    async def remove(self, scope: LimitScope, subject: str, by: Principal) -> SpendingLimit:
        """End a limit, and forget what was counted against it; the limit as it was.

        Raises NotFound, PermissionDenied.
        """
        now_ms = self._clock.now_ms()

        def delete(tx: Transaction) -> SpendingLimit:
            found = find_subject(tx, scope, subject, by)
            _check_setter(tx, found, by)
            limit = _one(tx, found, now_ms)
            which = (found.scope, found.id)
            tx.execute("DELETE FROM spending_limits WHERE scope = ? AND subject_id = ?", which)
            tx.execute("DELETE FROM limit_months WHERE scope = ? AND subject_id = ?", which)
            return limit

        return await self._database.write(delete)

    async def list(
        self, by: Principal, *, after: tuple[str, str] = ("", ""), limit: int = PAGE_LENGTH_MAX
    ) -> list[SpendingLimit]:
        """Up to ``limit`` of those that ``by`` may see, from behind a scope and subject id.

        Owners see all. Others see those on their own spend, on the orgs and resource groups that
        they belong to, and as an admin all of the org's.
        """
        rows = await self._database.read(
            _PAGE,
            (
                period_of(self._clock.now_ms()),
                by.user_id,
                *after,
                by.owner,
                by.user_id,
                by.user_id,
                min(limit, PAGE_LENGTH_MAX),
            ),
        )
        return [_limit(row) for row in rows]


def _check_setter(tx: Transaction, subject: Subject, by: Principal) -> None:
    """Raise PermissionDenied where an owner set the limit and somebody else would change it."""
    if by.owner:
        return
    rows = tx.execute(
        "SELECT u.role FROM spending_limits l LEFT JOIN users u ON u.id = l.set_by"
        " WHERE l.scope = ? AND l.subject_id = ?",
        (subject.scope, subject.id),
    )
    # Whoever is not a user is the operator, at the command line.
    if rows and rows[0][0] != "member":
        raise PermissionDenied(
            "An owner of this appliance set this spending limit: ask them to change it."
        )


def _one(tx: Transaction, subject: Subject, now_ms: int) -> SpendingLimit:
    rows = tx.execute(_ONE, (period_of(now_ms), subject.scope, subject.id))
    if not rows:
        raise NotFound("There is no such spending limit; `turnpike limits list` shows them.")
    return _limit(rows[0])


def _limit(row: Row) -> SpendingLimit:
    scope, subject_id, amount, set_by, set_at_ms, posted, held = row[:7]
    prefix, key_name, user, org, group = row[7:]
    subject, label = {
        "key": (f"tp_{prefix}", f"{user}: {key_name} (tp_{prefix})"),
        "user": (user, user),
        "member": (f"{org}/{user}", f"{user} in {org}"),
        "group": (subject_id, f"{group} of {org}"),
        "payer": (user or org, user or org),
    }[scope]
    return SpendingLimit(
        scope=scope,
        subject_id=subject_id,
        subject=subject,
        label=label,
        amount_nano_usd=amount,
        set_by=set_by,
        set_at_ms=set_at_ms,
        posted_nano_usd=posted,
        held_nano_usd=held,
    )
