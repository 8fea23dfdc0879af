"""Who pays, by name: users and orgs share one namespace."""

from typing import Literal

import msgspec

from app.clock import Clock
from app.errors import NotFound, PermissionDenied
from app.identity.names import is_name, looks_like_id, shown
from app.identity.principal import Principal
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


_BY_DEFAULT = """
SELECT o.id FROM members m JOIN orgs o ON o.id = m.org_id
WHERE m.user_id = ? AND o.default_payer = 1 ORDER BY m.added_at_ms, o.id LIMIT 1
"""
_NAMED = """
SELECT o.id FROM orgs o JOIN members m ON m.org_id = o.id AND m.user_id = ? WHERE o.name = ?
"""
_WITH_ID = """
SELECT o.id FROM orgs o JOIN members m ON m.org_id = o.id AND m.user_id = ?1 WHERE o.id = ?2
UNION ALL SELECT g.org_id FROM resource_groups g
JOIN members m ON m.org_id = g.org_id AND m.user_id = ?1 WHERE g.id = ?2
"""
REMEMBERED_NS = 10**9
REMEMBERED_MAX = 10_000


class Payer(msgspec.Struct, frozen=True):
    """A user or an org, as whoever pays."""

    id: str
    name: str
    kind: Literal["user", "org"]


class Payers:
    """Finds them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._recent: dict[tuple[str, str | None], tuple[str | None, int]] = {}

    async def of_caller(self, principal: Principal, bill_to: str | None) -> str | None:
        """The id of who is going to pay for a call; ``bill_to`` as ``Standings.of_caller`` has it.
        None where the user may not bill there, which the ledger tells them.

        For what has to be known before the hold. Remembered for a second, so it can be outdated:
        the hold says who does pay, and must be asked.
        """
        asked, now_ns = (principal.user_id, bill_to), self._clock.monotonic_ns()
        known = self._recent.get(asked)
        if known is not None and now_ns < known[1]:
            return known[0]
        payer_id = await self._find(principal, bill_to)
        if len(self._recent) >= REMEMBERED_MAX:
            self._recent.clear()
        self._recent[asked] = (payer_id, now_ns + REMEMBERED_NS)
        return payer_id

    async def _find(self, principal: Principal, bill_to: str | None) -> str | None:
        user_id = principal.user_id
        if bill_to is None:
            rows = await self._database.read(_BY_DEFAULT, (user_id,))
            return str(rows[0][0]) if rows else user_id
        if bill_to.lower() in (principal.user_name.lower(), user_id):
            return user_id
        if not is_name(bill_to):
            return None
        query = _WITH_ID if looks_like_id(bill_to) else _NAMED
        rows = await self._database.read(query, (user_id, bill_to))
        return str(rows[0][0]) if rows else None

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
