"""Orgs: tenants whose money can pay for their members' calls."""

from collections.abc import Callable, Collection

import msgspec

from app.clock import Clock
from app.errors import InvalidRequest, NotFound
from app.identity.names import check_free, check_name, shown
from app.identity.users import PAGE_LENGTH_MAX, unknown_user
from app.ids import new_org_id
from app.storage.database import Database, Row, Transaction

_SELECT = "SELECT o.id, o.name, o.tier, o.default_payer, o.seats, o.created_at_ms FROM orgs o"


class Org(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant. ``seats`` is how many members it has; with ``default_payer`` it pays for the calls
    of members that name no payer."""

    id: str
    name: str
    tier: str
    default_payer: bool
    seats: int
    created_at_ms: int


class OrgStore:
    """The orgs table. ``tiers`` are the names of those for orgs, in the file's order."""

    def __init__(self, database: Database, clock: Clock, tiers: Collection[str]) -> None:
        self.tiers = tuple(tiers)
        self._database = database
        self._clock = clock

    async def add(self, name: str, tier: str, admin: str, *, default_payer: bool = False) -> Org:
        """Make an org; the user named ``admin`` is its first member.

        Raises InvalidRequest for a bad name or a tier that is not for orgs, NotFound for an
        unknown user, Conflict when a user or an org has the name.
        """
        check_name("An org", name)
        self._check_tier(tier)
        org_id, now_ms = new_org_id(), self._clock.now_ms()

        def insert(tx: Transaction) -> Org:
            check_free(tx, name)
            users = tx.execute("SELECT id FROM users WHERE name = ?", (admin,))
            if not users:
                raise unknown_user(admin)
            tx.execute(
                "INSERT INTO orgs (id, name, tier, default_payer, created_at_ms)"
                " VALUES (?, ?, ?, ?, ?)",
                (org_id, name, tier, int(default_payer), now_ms),
            )
            tx.execute(
                "INSERT INTO members (org_id, user_id, role, added_at_ms)"
                " VALUES (?, ?, 'admin', ?)",
                (org_id, users[0][0], now_ms),
            )
            return _changed(tx, org_id)

        return await self._database.write(insert)

    async def named(self, name_or_id: str) -> Org:
        """The org of this name, in any case, or id. Raises NotFound."""
        rows = await self._database.read(
            f"{_SELECT} WHERE o.name = ? OR o.id = ?", (name_or_id, name_or_id)
        )
        if not rows:
            raise unknown_org(name_or_id)
        return _org(rows[0])

    async def of_member(
        self, user_id: str, *, after: str = "", limit: int = PAGE_LENGTH_MAX
    ) -> list[Org]:
        """As ``list``, of the orgs that a user belongs to."""
        rows = await self._database.read(
            f"{_SELECT} JOIN members m ON m.org_id = o.id"
            " WHERE m.user_id = ? AND o.id > ? ORDER BY o.id LIMIT ?",
            (user_id, after, min(limit, PAGE_LENGTH_MAX)),
        )
        return [_org(row) for row in rows]

    async def set_tier(self, org_id: str, tier: str) -> Org:
        """Put an org on another tier, from the next call on.

        Raises InvalidRequest for a tier that is not for orgs, NotFound.
        """
        self._check_tier(tier)
        return await self._database.write(
            _update("UPDATE orgs SET tier = ? WHERE id = ?", tier, org_id)
        )

    async def set_default_payer(self, org_id: str, pays: bool) -> Org:
        """Whether the org pays for its members' calls that name no payer. Raises NotFound."""
        return await self._database.write(
            _update("UPDATE orgs SET default_payer = ? WHERE id = ?", int(pays), org_id)
        )

    async def list(self, *, after: str = "", limit: int = PAGE_LENGTH_MAX) -> list[Org]:
        """Up to ``limit`` orgs, oldest first, from behind the id ``after``."""
        rows = await self._database.read(
            f"{_SELECT} WHERE o.id > ? ORDER BY o.id LIMIT ?", (after, min(limit, PAGE_LENGTH_MAX))
        )
        return [_org(row) for row in rows]

    def _check_tier(self, tier: str) -> None:
        if tier not in self.tiers:
            known = ", ".join(self.tiers) or "none; the configuration has no tier with org = true"
            raise InvalidRequest(
                f"There is no tier {shown(tier)} for orgs; tiers for orgs: {known}.", param="tier"
            )


def unknown_org(name: str) -> NotFound:
    """The error for an org that does not exist, for those who may know."""
    return NotFound(f"There is no org named {shown(name)}; `turnpike orgs list` shows them.")


def _update(sql: str, value: object, org_id: str) -> Callable[[Transaction], Org]:
    def update(tx: Transaction) -> Org:
        tx.execute(sql, (value, org_id))
        return _changed(tx, org_id)

    return update


def _changed(tx: Transaction, org_id: str) -> Org:
    rows = tx.execute(f"{_SELECT} WHERE o.id = ?", (org_id,))
    if not rows:
        raise unknown_org(org_id)
    return _org(rows[0])


def _org(row: Row) -> Org:
    org_id, name, tier, default_payer, seats, created_at_ms = row
    return Org(
        id=org_id,
        name=name,
        tier=tier,
        default_payer=bool(default_payer),
        seats=seats,
        created_at_ms=created_at_ms,
    )
