"""Who pays, by name: users and orgs share one namespace."""

from typing import Literal

import msgspec

from app.errors import NotFound, PermissionDenied
from app.identity.names import shown
from app.storage.database import Database, Row

_BY_NAME = """
SELECT id, name, 'user' FROM users WHERE name = ?
UNION ALL SELECT id, name, 'org' FROM orgs WHERE name = ?
"""
_BY_ID = """
SELECT id, name, 'user' FROM users WHERE id = ?
UNION ALL SELECT id, name, 'org' FROM orgs WHERE id = ?
"""
_ROLE = """
SELECT o.id, o.name, 'org', m.role FROM orgs o
LEFT JOIN members m ON m.org_id = o.id AND m.user_id = ?
WHERE o.name = ?
"""


class Payer(msgspec.Struct, frozen=True):
    """A user or an org, as whoever pays."""

    id: str
    name: str
    kind: Literal["user", "org"]


class Payers:
    """Finds them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def named(self, name: str) -> Payer:
        """The user or org with this name, in any case. Raises NotFound."""
        found = await self._database.read(_BY_NAME, (name, name))
        if not found:
            raise NotFound(
                f"There is no user or org named {shown(name)}; GET /api/users and GET /api/orgs"
                " list them.",
                param="payer",
            )
        return _payer(found[0])

    async def of_id(self, payer_id: str) -> Payer:
        """The user or org with this id. Raises NotFound."""
        found = await self._database.read(_BY_ID, (payer_id, payer_id))
        if not found:
            raise NotFound("There is no user or org with this id any more.", param="payer")
        return _payer(found[0])

    async def org_of(self, name: str, user_id: str) -> tuple[Payer, Literal["admin", "member"]]:
        """The org with this name, and what the user is in it.

        Raises PermissionDenied alike for an org of others and for one that does not exist.
        """
        found = await self._database.read(_ROLE, (user_id, name))
        if not found or found[0][3] is None:
            raise PermissionDenied(
                f"You are not a member of an org named {shown(name)}. Ask one of its admins to add"
                " you, or leave out 'org' to ask about yourself.",
                param="org",
            )
        return _payer(found[0][:3]), found[0][3]


def _payer(row: Row) -> Payer:
    payer_id, name, kind = row
    return Payer(payer_id, name, kind)
