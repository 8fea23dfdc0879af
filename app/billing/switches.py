"""Providers and models that an org switches off: it does not pay for its members' calls to them."""

from typing import Literal

import msgspec

from app.clock import Clock
from app.errors import InvalidRequest, NotFound
from app.identity.names import shown
from app.storage.database import Database, Row, Transaction

SwitchKind = Literal["provider", "model"]
REASON_LENGTH_MAX = 200
_SELECT = (
    "SELECT s.org_id, s.kind, s.name, s.reason, coalesce(u.name, s.set_by), s.set_at_ms"
    " FROM switched_off s LEFT JOIN users u ON u.id = s.set_by"
)


class SwitchedOff(msgspec.Struct, frozen=True, kw_only=True):
    """What an org does not pay for, why, and who said so; callers are told the reason."""

    org_id: str
    kind: SwitchKind
    name: str
    reason: str
    set_by: str
    set_at_ms: int


class Switches:
    """The switched_off table."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def list(self, org_id: str) -> list[SwitchedOff]:
        """All that the org has switched off."""
        rows = await self._database.read(
            f"{_SELECT} WHERE s.org_id = ? ORDER BY s.kind, s.name", (org_id,)
        )
        return [_switched_off(row) for row in rows]

    async def off(
        self, org_id: str, kind: SwitchKind, name: str, reason: str, by_user_id: str
    ) -> SwitchedOff:
        """Switch off from the next call on; again replaces the reason.

        Raises InvalidRequest for a reason that is empty, too long or not printable.
        """
        if not (reason.strip() and reason.isprintable() and len(reason) <= REASON_LENGTH_MAX):
            raise InvalidRequest(
                f"The reason has 1 to {REASON_LENGTH_MAX} printable characters: those who are"
                " refused get to read it.",
                param="reason",
            )
        now_ms = self._clock.now_ms()

        def upsert(tx: Transaction) -> SwitchedOff:
            tx.execute(
                "INSERT INTO switched_off (org_id, kind, name, reason, set_by, set_at_ms)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET reason = excluded.reason,"
                " set_by = excluded.set_by, set_at_ms = excluded.set_at_ms",
                (org_id, kind, name, reason, by_user_id, now_ms),
            )
            return _found(tx, org_id, kind, name)

        return await self._database.write(upsert)

    async def on(self, org_id: str, kind: SwitchKind, name: str) -> SwitchedOff:
        """Switch on again; what was switched off. Raises NotFound."""

        def delete(tx: Transaction) -> SwitchedOff:
            found = _found(tx, org_id, kind, name)
            tx.execute(
                "DELETE FROM switched_off WHERE org_id = ? AND kind = ? AND name = ?",
                (org_id, kind, name),
            )
            return found

        return await self._database.write(delete)


def _found(tx: Transaction, org_id: str, kind: SwitchKind, name: str) -> SwitchedOff:
    rows = tx.execute(
        f"{_SELECT} WHERE s.org_id = ? AND s.kind = ? AND s.name = ?", (org_id, kind, name)
    )
    if not rows:
        raise NotFound(f"The {kind} {shown(name)} is not switched off in this org.")
    return _switched_off(rows[0])


def _switched_off(row: Row) -> SwitchedOff:
    org_id, kind, name, reason, set_by, set_at_ms = row
    return SwitchedOff(
        org_id=org_id, kind=kind, name=name, reason=reason, set_by=set_by, set_at_ms=set_at_ms
    )
