"""Resource groups: parts of an org that calls can be billed to, and who may."""

import msgspec

from app.clock import Clock
from app.errors import Conflict, NotFound
from app.identity.members import member_of, unknown_member
from app.identity.names import check_name, shown
from app.identity.users import PAGE_LENGTH_MAX
from app.ids import new_group_id
from app.storage.database import Database, Row, Transaction

_SELECT = "SELECT id, org_id, name, created_at_ms FROM resource_groups"
_WHICH = "WHERE org_id = ? AND (id = ? OR name = ?)"


class ResourceGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A part of an org; its id is what ``X-HF-Bill-To`` takes."""

    id: str
    org_id: str
    name: str
    created_at_ms: int


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member of the org who may bill calls to the group; the org's admins always may."""

    group_id: str
    user_id: str
    user_name: str


class GroupStore:
    """The resource_groups and group_members tables. All takes an org: groups are seen within it
    only. ``group`` is a group's id, or its name in any case."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, org_id: str, name: str) -> ResourceGroup:
        """Make a group. Raises InvalidRequest for a bad name, Conflict when the org has one."""
        check_name("A resource group", name)
        group_id, now_ms = new_group_id(), self._clock.now_ms()

        def insert(tx: Transaction) -> ResourceGroup:
            rows = tx.execute(
                "INSERT INTO resource_groups (id, org_id, name, created_at_ms)"
                " VALUES (?, ?, ?, ?) ON CONFLICT (org_id, name) DO NOTHING"
                " RETURNING id, org_id, name, created_at_ms",
                (group_id, org_id, name, now_ms),
            )
            if not rows:
                raise Conflict(f"This org has a resource group {name} already.", param="name")
            return _group(rows[0])

        return await self._database.write(insert)

    async def remove(self, org_id: str, group: str) -> ResourceGroup:
        """End a group and its spending limit: nothing more can be billed to it; what was, stays so.

        Raises NotFound.
        """

        def delete(tx: Transaction) -> ResourceGroup:
            found = _found(tx, org_id, group)
            tx.execute(
                "DELETE FROM spending_limits WHERE scope = 'group' AND subject_id = ?", (found.id,)
            )
            tx.execute(
                "DELETE FROM limit_months WHERE scope = 'group' AND subject_id = ?", (found.id,)
            )
            tx.execute("DELETE FROM group_members WHERE group_id = ?", (found.id,))
            tx.execute("DELETE FROM resource_groups WHERE id = ?", (found.id,))
            return found

        return await self._database.write(delete)

    async def named(self, org_id: str, group: str) -> ResourceGroup:
        """One group. Raises NotFound."""
        rows = await self._database.read(f"{_SELECT} {_WHICH}", (org_id, group, group))
        if not rows:
            raise unknown_group(group)
        return _group(rows[0])

    async def members(
        self, group: ResourceGroup, *, after: str = "", limit: int = PAGE_LENGTH_MAX
    ) -> list[GroupMember]:
        """Up to ``limit`` members of a group, from behind the user ``after``."""
        rows = await self._database.read(
            "SELECT gm.group_id, gm.user_id, u.name FROM group_members gm"
            " JOIN users u ON u.id = gm.user_id"
            " WHERE gm.group_id = ? AND gm.user_id > ? ORDER BY gm.user_id LIMIT ?",
            (group.id, after, min(limit, PAGE_LENGTH_MAX)),
        )
        return [_group_member(row) for row in rows]

    async def add_member(self, org_id: str, group: str, user_name: str) -> GroupMember:
        """Let a member of the org bill calls to the group; again changes nothing.

        Raises NotFound for an unknown group, or a user who is not a member of the org.
        """

        def insert(tx: Transaction) -> GroupMember:
            found = _member_to_be(tx, org_id, group, user_name)
            tx.execute(
                "INSERT INTO group_members (group_id, user_id) VALUES (?, ?)"
                " ON CONFLICT DO NOTHING",
                (found.group_id, found.user_id),
            )
            return found

        return await self._database.write(insert)

    async def remove_member(self, org_id: str, group: str, user_name: str) -> GroupMember:
        """The reverse. Raises NotFound, also for a user who is not in the group."""

        def delete(tx: Transaction) -> GroupMember:
            found = _member_to_be(tx, org_id, group, user_name)
            gone = tx.execute(
                "DELETE FROM group_members WHERE group_id = ? AND user_id = ? RETURNING 1",
                (found.group_id, found.user_id),
            )
            if not gone:
                raise NotFound(f"{found.user_name} is not in this resource group.")
            return found

        return await self._database.write(delete)

    async def list(
        self, org_id: str, *, after: str = "", limit: int = PAGE_LENGTH_MAX
    ) -> list[ResourceGroup]:
        """Up to ``limit`` groups of the org, oldest first, from behind the id ``after``."""
        rows = await self._database.read(
            f"{_SELECT} WHERE org_id = ? AND id > ? ORDER BY id LIMIT ?",
            (org_id, after, min(limit, PAGE_LENGTH_MAX)),
        )
        return [_group(row) for row in rows]


def _member_to_be(tx: Transaction, org_id: str, group: str, user_name: str) -> GroupMember:
    found = _found(tx, org_id, group)
    member = member_of(tx, org_id, user_name)
    if member is None:
        raise unknown_member(user_name)
    return GroupMember(group_id=found.id, user_id=member.user_id, user_name=member.user_name)


def _found(tx: Transaction, org_id: str, group: str) -> ResourceGroup:
    rows = tx.execute(f"{_SELECT} {_WHICH}", (org_id, group, group))
    if not rows:
        raise unknown_group(group)
    return _group(rows[0])


def unknown_group(group: str) -> NotFound:
    """The error for a group that the org does not have."""
    return NotFound(
        f"There is no resource group {shown(group)} in this org;"
        " `turnpike orgs groups list ORG` shows them."
    )


def _group(row: Row) -> ResourceGroup:
    group_id, org_id, name, created_at_ms = row
    return ResourceGroup(id=group_id, org_id=org_id, name=name, created_at_ms=created_at_ms)


def _group_member(row: Row) -> GroupMember:
    group_id, user_id, user_name = row
    return GroupMember(group_id=group_id, user_id=user_id, user_name=user_name)
