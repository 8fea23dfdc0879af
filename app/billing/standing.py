"""Who pays for a caller, and within what: the answers to the ledger's ``Standings``.

All is asked on the writer thread, within the transaction that places the hold, so a member who was
removed a moment ago is not one any more. A caller costs three or four point queries, however many
users, orgs and seats there are.
"""

from typing import NamedTuple

from app.billing.tiers import Tiers
from app.errors import InvalidKey, NotFound, PermissionDenied
from app.identity.names import is_name, looks_like_id
from app.ledger.entries import CreditTerms, Limit, Standing
from app.ledger.standing import Ask

_CALLER = """
SELECT u.name, u.tier, k.revoked_at_ms
FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = ? AND u.id = ?
"""
_PAYS_BY_DEFAULT = """
SELECT o.id, o.name, o.tier, o.seats, ''
FROM members m JOIN orgs o ON o.id = m.org_id
WHERE m.user_id = ? AND o.default_payer = 1 ORDER BY m.added_at_ms, o.id LIMIT 1
"""
_ORG = """
SELECT o.id, o.name, o.tier, o.seats, ''
FROM orgs o JOIN members m ON m.org_id = o.id AND m.user_id = ?
"""
_ORG_NAMED = f"{_ORG} WHERE o.name = ?"
_ORG_BY_ID = f"{_ORG} WHERE o.id = ?"
_GROUP_BY_ID = """
SELECT o.id, o.name, o.tier, o.seats, g.id
FROM resource_groups g JOIN orgs o ON o.id = g.org_id
JOIN members m ON m.org_id = o.id AND m.user_id = ?
WHERE g.id = ? AND (m.role = 'admin' OR EXISTS (
    SELECT 1 FROM group_members gm WHERE gm.group_id = g.id AND gm.user_id = m.user_id
))
"""
_PAYER = """
SELECT tier, 1 FROM users WHERE id = ? UNION ALL SELECT tier, seats FROM orgs WHERE id = ?
"""
_SWITCHED_OFF = "SELECT kind, name, reason FROM switched_off WHERE org_id = ?"
# One search of the primary key for each scope; SQLite would walk the table for a list of pairs.
_LIMITS = {
    scopes: "SELECT scope, subject_id, amount_nano_usd, set_at_ms"  # noqa: S608 (ours)
    " FROM spending_limits WHERE " + " OR ".join(["(scope = ? AND subject_id = ?)"] * scopes)
    for scopes in (3, 4, 5)
}
_ORDER = ("key", "user", "member", "group", "payer")


class _Payer(NamedTuple):
    id: str
    name: str
    tier: str
    seats: int
    group_id: str = ""


class AccountStandings:
    """Implements ``Standings`` over users, keys, orgs, groups, spending limits and switches."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    def of_caller(self, ask: Ask, user_id: str, key_id: str, bill_to: str | None) -> Standing:
        """See ``Standings.of_caller``.

        Without ``bill_to`` the org pays that made itself its members' default payer (the one
        joined first, of several), else the user. ``bill_to`` is the user's own name, the name or
        id of an org, or the id of a resource group; it has the code ``not_a_member`` where the
        user may not bill to it, whether it exists or not.
        """
        user = _user(ask, user_id, key_id)
        payer = _payer(ask, user, bill_to)
        by_org = payer.id != user.id
        off: dict[str, dict[str, str]] = {"provider": {}, "model": {}}
        if by_org:
            for kind, name, reason in ask(_SWITCHED_OFF, (payer.id,)):
                off[kind][name] = reason
        return Standing(
            payer_id=payer.id,
            payer_name=payer.name,
            terms=self._tiers.terms_of(payer.tier, payer.seats),
            group_id=payer.group_id,
            limits=_limits(ask, user_id, key_id, payer, by_org),
            providers_off=off["provider"],
            models_off=off["model"],
        )

    def of_payer(self, ask: Ask, payer_id: str) -> CreditTerms:
        """See ``Standings.of_payer``."""
        rows = ask(_PAYER, (payer_id, payer_id))
        if not rows:
            raise NotFound("There is no user or org with this id.")
        tier, seats = rows[0]
        return self._tiers.terms_of(tier, seats)


def _user(ask: Ask, user_id: str, key_id: str) -> _Payer:
    rows = ask(_CALLER, (key_id, user_id))
    if not rows:
        raise InvalidKey("This API key is not known here any more. Use another key.")
    name, tier, revoked_at_ms = rows[0]
    if revoked_at_ms is not None:
        raise InvalidKey("This API key was revoked. Use another key.")
    return _Payer(user_id, name, tier, 1)


def _payer(ask: Ask, user: _Payer, bill_to: str | None) -> _Payer:
    if bill_to is None:
        rows = ask(_PAYS_BY_DEFAULT, (user.id,))
        return _Payer(*rows[0]) if rows else user
    if bill_to.lower() in (user.name.lower(), user.id):
        return user
    rows = ask(_billed_to(bill_to), (user.id, bill_to)) if is_name(bill_to) else []
    if not rows:
        raise PermissionDenied(
            "This call cannot be billed there: you are not a member of such an org, or not in such"
            " a resource group. Bill it to an org's name or a resource group's id that its admin"
            " gave you, or leave X-HF-Bill-To out.",
            param="X-HF-Bill-To",
            code="not_a_member",
        )
    return _Payer(*rows[0])


def _billed_to(bill_to: str) -> str:
    """The query that finds who is meant: names never look like ids."""
    if not looks_like_id(bill_to):
        return _ORG_NAMED
    return _GROUP_BY_ID if bill_to.startswith("group_") else _ORG_BY_ID


def _limits(ask: Ask, user_id: str, key_id: str, payer: _Payer, by_org: bool) -> tuple[Limit, ...]:
    """The spending limits that are set, of all that a call of this payer has to stay within."""
    asked = ["key", key_id, "user", user_id, "payer", payer.id]
    if by_org:
        asked += ["member", f"{payer.id}/{user_id}"]
    if payer.group_id:
        asked += ["group", payer.group_id]
    limits = [Limit(*row) for row in ask(_LIMITS[len(asked) // 2], asked)]
    return tuple(sorted(limits, key=lambda limit: _ORDER.index(limit.scope)))
