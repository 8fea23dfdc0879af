"""Who belongs to an org: each member is a seat, and admins are members who may change the org."""

from collections.abc import Callable
from typing import Literal

import msgspec

from app.clock import Clock
from app.errors import Conflict, NotFound
from app.identity.names import shown
from app.identity.users import PAGE_LENGTH_MAX, unknown_user
from app.storage.database import Database, Row, Transaction

MemberRole = Literal["admin", "member"]
_SELECT = (
    "SELECT m.org_id, m.user_id, u.name, m.role, m.added_at_ms"
    " FROM members m JOIN users u ON u.id = m.user_id"
)


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A user's paid place in an org."""

    org_id: str
    user_id: str
    user_name: str
    role: MemberRole
    added_at_ms: int


class MemberStore:
    """The members table. An org always keeps an admin."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def role_of(self, org_id: str, user_id: str) -> MemberRole | None:
        """What a user is in an org; None for those who do not belong to it."""
        rows = await self._database.read(
            "SELECT role FROM members WHERE org_id = ? AND user_id = ?", (org_id, user_id)
        )
        role: MemberRole | None = rows[0][0] if rows else None
        return role

    async def list(
        self, org_id: str, *, after: str = "", limit: int = PAGE_LENGTH_MAX
    ) -> list[Member]:
        """Up to ``limit`` members, in the order of their users, from behind the user ``after``."""
        rows = await self._database.read(
            f"{_SELECT} WHERE m.org_id = ? AND m.user_id > ? ORDER BY m.user_id LIMIT ?",
            (org_id, after, min(limit, PAGE_LENGTH_MAX)),
        )
        return [_member(row) for row in rows]

    async def add(self, org_id: str, user_name: str, role: MemberRole = "member") -> Member:
        """Give a user a seat. Raises NotFound for an unknown user, Conflict for a member."""
        now_ms = self._clock.now_ms()

        def insert(tx: Transaction) -> Member:
            users = tx.execute("SELECT id, name FROM users WHERE name = ?", (user_name,))
            if not users:
                raise unknown_user(user_name)
            user_id, name = users[0]
            made = tx.execute(
                "INSERT INTO members (org_id, user_id, role, added_at_ms) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING RETURNING 1",
                (org_id, user_id, role, now_ms),
            )
            if not made:
                raise Conflict(f"{name} is a member of this org already.", param="user")
            return _found(tx, org_id, user_name)

        return await self._database.write(insert)

    async def set_role(self, org_id: str, user_name: str, role: MemberRole) -> Member:
        """Make a member an admin, or an admin a member. Raises NotFound, Conflict (last admin)."""

        def update(tx: Transaction) -> Member:
            member = _found(tx, org_id, user_name)
            if role != "admin":
                _check_not_last_admin(tx, member)
            tx.execute(
                "UPDATE members SET role = ? WHERE org_id = ? AND user_id = ?",
                (role, org_id, member.user_id),
            )
            return msgspec.structs.replace(member, role=role)

        return await self._database.write(update)

    async def remove(self, org_id: str, user_name: str) -> Member:
        """Take a member's seat, and their places in the org's resource groups.

        Calls in flight are paid by whom they were admitted for. Raises NotFound, Conflict (last
        admin).
        """
        return await self._database.write(_removal(org_id, user_name))


def unknown_member(name: str) -> NotFound:
    """The error for a user without a seat; whether there is such a user is not told."""
    return NotFound(f"There is no member named {shown(name)} in this org.")


def member_of(tx: Transaction, org_id: str, user_name: str) -> Member | None:
    """The member of this name, within a write."""
    rows = tx.execute(f"{_SELECT} WHERE m.org_id = ? AND u.name = ?", (org_id, user_name))
    return _member(rows[0]) if rows else None


def _removal(org_id: str, user_name: str) -> Callable[[Transaction], Member]:
    def delete(tx: Transaction) -> Member:
        member = _found(tx, org_id, user_name)
        _check_not_last_admin(tx, member)
        tx.execute(
            "DELETE FROM group_members WHERE user_id = ? AND group_id IN"
            " (SELECT id FROM resource_groups WHERE org_id = ?)",
            (member.user_id, org_id),
        )
        tx.execute("DELETE FROM members WHERE org_id = ? AND user_id = ?", (org_id, member.user_id))
        return member

    return delete


def _found(tx: Transaction, org_id: str, user_name: str) -> Member:
    member = member_of(tx, org_id, user_name)
    if member is None:
        raise unknown_member(user_name)
    return member


def _check_not_last_admin(tx: Transaction, member: Member) -> None:
    others = tx.execute(
        "SELECT 1 FROM members WHERE org_id = ? AND role = 'admin' AND user_id <> ? LIMIT 1",
        (member.org_id, member.user_id),
    )
    if member.role == "admin" and not others:
        raise Conflict(
            f"{member.user_name} is the org's last admin. Make another member an admin first.",
            code="last_admin",
        )


def _member(row: Row) -> Member:
    org_id, user_id, user_name, role, added_at_ms = row
    return Member(
        org_id=org_id, user_id=user_id, user_name=user_name, role=role, added_at_ms=added_at_ms
    )
