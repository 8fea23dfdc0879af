"""No egress: keys, users and orgs whose calls may only go to offers with one of some labels.

What is in force is in memory, so that a call costs two look-ups and no I/O; the table is read at
the start and written through here only. Nothing in a request can widen it: the plan gets the labels
from here, and an offer has to carry one of each set.
"""

import asyncio
import re
from collections.abc import Callable, Collection

import msgspec

from app.clock import Clock
from app.errors import InvalidRequest, NotFound, PermissionDenied
from app.identity.changes import Changes
from app.identity.confined_subjects import SubjectKind, find_subject
from app.identity.principal import Principal
from app.storage.database import Database, Row, Transaction

LABELS_MAX = 32
Labels = frozenset[str]
_LABEL = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

_SELECT = """
SELECT c.kind, c.subject_id, c.labels, c.by_owner, coalesce(b.name, c.set_by), c.set_at_ms,
       CASE c.kind WHEN 'key' THEN 'tp_' || k.prefix WHEN 'user' THEN u.name ELSE o.name END
FROM confinements c
LEFT JOIN users b ON b.id = c.set_by
LEFT JOIN api_keys k ON c.kind = 'key' AND k.id = c.subject_id
LEFT JOIN users u ON c.kind = 'user' AND u.id = c.subject_id
LEFT JOIN orgs o ON c.kind = 'org' AND o.id = c.subject_id
"""
_ONE = f"{_SELECT} WHERE c.kind = ? AND c.subject_id = ?"
_VISIBLE = f"""
{_SELECT}
WHERE (? OR k.user_id = ? OR u.id = ? OR EXISTS (
    SELECT 1 FROM members m WHERE m.org_id = o.id AND m.user_id = ?
))
ORDER BY c.kind, c.subject_id
"""  # noqa: S608 (its parts are ours)


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """One row: offers need at least one of ``labels``. ``subject`` is what people call it."""

    kind: SubjectKind
    subject_id: str
    subject: str
    labels: list[str]
    by_owner: bool
    set_by: str
    set_at_ms: int


class Confinements:
    """The confinements table, and what of it is in force.

    Owners set and lift any. A user may confine keys of their own, an org's admin the org. Whatever
    an owner has set, and a key's in any case, others can only tighten: to fewer of its labels.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._changes = Changes()
        self._writing = asyncio.Lock()
        self._in_force: dict[SubjectKind, dict[str, Labels]] = {"key": {}, "user": {}, "org": {}}
        self._keys, self._users, self._orgs = self._in_force.values()

    async def load(self) -> None:
        """Read the table; before the first call."""
        for kind, subject_id, labels in await self._database.read(
            "SELECT kind, subject_id, labels FROM confinements"
        ):
            self._in_force[kind][subject_id] = frozenset(labels.split())

    # What calls ask.

    def labels_for(self, user_id: str, key_id: str) -> tuple[Labels, ...]:
        """What a caller is confined to: an offer needs a label of each set. Mostly nothing."""
        key, user = self._keys.get(key_id), self._users.get(user_id)
        if key is None:
            return () if user is None else (user,)
        return (key,) if user is None else (key, user)

    @property
    def of_orgs(self) -> bool:
        """Whether any org is confined."""
        return bool(self._orgs)

    def for_payer(self, payer_id: str) -> tuple[Labels, ...]:
        """What calls that an org pays for are confined to; nothing for a user as the payer."""
        org = self._orgs.get(payer_id)
        return () if org is None else (org,)

    # What people set.

    async def list(self, by: Principal) -> list[Confinement]:
        """Those that ``by`` may see: owners all, others those of themselves and of their orgs."""
        asked = (by.owner, by.user_id, by.user_id, by.user_id)
        return [_confinement(row) for row in await self._database.read(_VISIBLE, asked)]

    async def confine(
        self, kind: SubjectKind, subject: str, labels: Collection[str], by: Principal
    ) -> Confinement:
        """Confine a key (id or public part), a user or an org (name or id) to these labels.

        In force from the next call on. Raises InvalidRequest, NotFound, PermissionDenied.
        """
        wanted = _checked(labels)
        now_ms = self._clock.now_ms()

        def upsert(tx: Transaction) -> Confinement:
            subject_id = find_subject(tx, kind, subject, by)
            rows = tx.execute(_ONE, (kind, subject_id))
            before = _confinement(rows[0]) if rows else None
            if before is not None:
                _check_tightens(before, wanted, by)
            by_owner = by.owner or (before is not None and before.by_owner)
            tx.execute(
                "INSERT INTO confinements (kind, subject_id, labels, by_owner, set_by, set_at_ms)"
                " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET labels = excluded.labels,"
                " by_owner = excluded.by_owner, set_by = excluded.set_by,"
                " set_at_ms = excluded.set_at_ms",
                (kind, subject_id, " ".join(sorted(wanted)), int(by_owner), by.user_id, now_ms),
            )
            return _confinement(tx.execute(_ONE, (kind, subject_id))[0])

        return await self._change(upsert, ends=False)

    async def release(self, kind: SubjectKind, subject: str, by: Principal) -> Confinement:
        """Lift a confinement; what it was. Raises NotFound, PermissionDenied."""

        def delete(tx: Transaction) -> Confinement:
            subject_id = find_subject(tx, kind, subject, by)
            rows = tx.execute(_ONE, (kind, subject_id))
            if not rows:
                raise NotFound(f"This {kind} is not confined.")
            found = _confinement(rows[0])
            if _is_fixed(found, by):
                raise PermissionDenied("Only an owner of this appliance lifts this confinement.")
            tx.execute(
                "DELETE FROM confinements WHERE kind = ? AND subject_id = ?", (kind, subject_id)
            )
            return found

        return await self._change(delete, ends=True)

    async def _change(
        self, unit: Callable[[Transaction], Confinement], *, ends: bool
    ) -> Confinement:
        """Write, then let the next call see it, also when the asker has left meanwhile."""

        async def write() -> Confinement:
            async with self._writing:  # so that memory takes changes in the order of the table
                found = await self._database.write(unit)
                in_force = self._in_force[found.kind]
                if ends:
                    in_force.pop(found.subject_id, None)
                else:
                    in_force[found.subject_id] = frozenset(found.labels)
                return found

        return await self._changes.follow(write(), lambda found: found.subject_id)


def _checked(labels: Collection[str]) -> Labels:
    """Raises InvalidRequest for none, too many, or what is no label."""
    wanted = frozenset(labels)
    if not 0 < len(wanted) <= LABELS_MAX or not all(_LABEL.fullmatch(each) for each in wanted):
        raise InvalidRequest(
            f"Give 1 to {LABELS_MAX} labels, such as local: lower-case letters, digits, _ and -,"
            " at most 32 of them each.",
            param="labels",
        )
    return wanted


def _is_fixed(before: Confinement, by: Principal) -> bool:
    """Whether ``by`` can only tighten it."""
    return not by.owner and (before.by_owner or before.kind == "key")


def _check_tightens(before: Confinement, wanted: Labels, by: Principal) -> None:
    if _is_fixed(before, by) and not wanted <= set(before.labels):
        raise PermissionDenied(
            f"This {before.kind} is confined to {', '.join(before.labels)}; only an owner of this"
            " appliance allows more. You may choose fewer of these.",
            param="labels",
        )


def _confinement(row: Row) -> Confinement:
    kind, subject_id, labels, by_owner, set_by, set_at_ms, subject = row
    return Confinement(
        kind=kind,
        subject_id=subject_id,
        subject=subject or subject_id,
        labels=labels.split(),
        by_owner=bool(by_owner),
        set_by=set_by,
        set_at_ms=set_at_ms,
    )
