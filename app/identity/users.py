"""People, and the tier each one is on."""

from collections.abc import AsyncIterator, Callable, Collection
from typing import Literal, TypeGuard

import msgspec

from app.clock import Clock
from app.errors import InvalidRequest, NotFound
from app.identity.changes import Changes
from app.identity.names import check_free, check_name, shown
from app.ids import new_user_id
from app.storage.database import Database, Row, Transaction

Role = Literal["owner", "member"]
PAGE_LENGTH_MAX = 1000

_SELECT = "SELECT id, name, tier, role, created_at_ms FROM users"


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person. An ``owner`` may use the admin routes, a ``member`` only the models."""

    id: str
    name: str
    tier: str
    role: Role
    created_at_ms: int


class UserStore:
    """The users table. ``tiers`` are the names of those for users, in the file's order."""

    def __init__(self, database: Database, clock: Clock, tiers: Collection[str]) -> None:
        self.tiers = tuple(tiers)
        self._database = database
        self._clock = clock
        self._changes = Changes()

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Call ``watcher`` with a user's id whenever something about the user has changed."""
        self._changes.watch(watcher)

    async def add(self, name: str, tier: str, role: str = "member") -> User:
        """Make a user. Names of users and orgs differ by more than case.

        Raises InvalidRequest for a bad name or an unknown tier or role, Conflict when taken.
        """
        check_name("A user", name)
        self._check_tier(tier)
        if not _is_role(role):
            raise InvalidRequest(f"There is no role {shown(role)}; roles: owner, member.")
        user = User(
            id=new_user_id(), name=name, tier=tier, role=role, created_at_ms=self._clock.now_ms()
        )

        def insert(tx: Transaction) -> None:
            check_free(tx, name)
            tx.execute(
                "INSERT INTO users (id, name, tier, role, created_at_ms) VALUES (?, ?, ?, ?, ?)",
                (user.id, user.name, user.tier, user.role, user.created_at_ms),
            )

        await self._database.write(insert)
        return user

    async def get(self, user_id: str) -> User:
        """The user with this id. Raises NotFound."""
        rows = await self._database.read(f"{_SELECT} WHERE id = ?", (user_id,))
        if not rows:
            raise NotFound("There is no user with this id.")
        return _user(rows[0])

    async def by_name(self, name: str) -> User:
        """The user with this name, in any case. Raises NotFound."""
        rows = await self._database.read(f"{_SELECT} WHERE name = ?", (name,))
        if not rows:
            raise unknown_user(name)
        return _user(rows[0])

    async def first_owner(self) -> User | None:
        """The oldest owner, if there is one."""
        rows = await self._database.read(f"{_SELECT} WHERE role = 'owner' ORDER BY id LIMIT 1")
        return _user(rows[0]) if rows else None

    async def list(self, *, after: str = "", limit: int = PAGE_LENGTH_MAX) -> list[User]:
        """Up to ``limit`` users, oldest first, from behind the id ``after``."""
        rows = await self._database.read(
            f"{_SELECT} WHERE id > ? ORDER BY id LIMIT ?",
            (after, min(limit, PAGE_LENGTH_MAX)),
        )
        return [_user(row) for row in rows]

    async def every(self) -> AsyncIterator[User]:
        """All users, oldest first, page by page."""
        page = await self.list()
        while page:
            for user in page:
                yield user
            page = await self.list(after=page[-1].id)

    async def set_tier(self, name: str, tier: str) -> User:
        """Put a user on another tier, from the next call on.

        Raises InvalidRequest for an unknown tier, NotFound for an unknown user.
        """
        self._check_tier(tier)

        def update(tx: Transaction) -> User:
            rows = tx.execute(
                "UPDATE users SET tier = ? WHERE name = ?"
                " RETURNING id, name, tier, role, created_at_ms",
                (tier, name),
            )
            if not rows:
                raise unknown_user(name)
            return _user(rows[0])

        return await self._changes.follow(self._write(update), lambda user: user.id)

    async def _write(self, unit: Callable[[Transaction], User]) -> User:
        return await self._database.write(unit)

    def _check_tier(self, tier: str) -> None:
        if tier not in self.tiers:
            known = ", ".join(self.tiers)
            raise InvalidRequest(f"There is no tier {shown(tier)}; tiers: {known}.", param="tier")


def unknown_user(name: str) -> NotFound:
    """The error for a name that nobody has."""
    return NotFound(f"There is no user named {shown(name)}; `turnpike users list` shows them.")


def _is_role(role: str) -> TypeGuard[Role]:
    return role in ("owner", "member")


def _user(row: Row) -> User:
    user_id, name, tier, role, created_at_ms = row
    return User(id=user_id, name=name, tier=tier, role=role, created_at_ms=created_at_ms)
