"""What a spending limit can be set on, as people name it, and who may set one there."""

from typing import Literal, NamedTuple, NoReturn

from app.errors import InvalidRequest, NotFound, PermissionDenied
from app.identity.key_format import public_part
from app.identity.names import shown
from app.identity.principal import Principal
from app.identity.users import unknown_user
from app.storage.database import Transaction

LimitScope = Literal["key", "user", "member", "group", "payer"]


class Subject(NamedTuple):
    """One row of spending_limits, set or not. ``org_tier`` is that of the org it is within."""

    scope: LimitScope
    id: str
    org_tier: str | None = None


def find_subject(tx: Transaction, scope: LimitScope, subject: str, by: Principal) -> Subject:
    """What ``subject`` names, if ``by`` may limit it.

    A key is named by its id or public part, a user by name, a member as ``ORG/USER``, a resource
    group by id, a payer by the user's or org's name. Raises NotFound, also for what ``by`` may not
    know of; PermissionDenied for what they may only look at; InvalidRequest.
    """
    if scope == "key":
        return _key(tx, subject, by)
    if scope == "user":
        return _user(tx, "user", subject, by)
    if scope == "member":
        org_name, slash, user_name = subject.partition("/")
        if not slash:
            raise InvalidRequest(
                "A member is named as ORG/USER, such as acme/alice.", param="subject"
            )
        return _member(tx, _org(tx, org_name, by) or _nothing(org_name), user_name)
    if scope == "group":
        return _group(tx, subject, by)
    org = _org(tx, subject, by)
    if org is not None:
        return Subject("payer", org.id, org.tier)
    return _user(tx, "payer", subject, by)


class _Org(NamedTuple):
    id: str
    tier: str


def _key(tx: Transaction, subject: str, by: Principal) -> Subject:
    which = public_part(subject)
    rows = tx.execute(
        "SELECT id FROM api_keys WHERE (id = ? OR prefix = ?) AND (? OR user_id = ?)",
        (which, which, by.owner, by.user_id),
    )
    if not rows:
        raise NotFound("There is no such key; `turnpike keys list` shows them.")
    return Subject("key", rows[0][0])


def _user(tx: Transaction, scope: LimitScope, subject: str, by: Principal) -> Subject:
    if not by.owner:
        if scope == "user":
            raise PermissionDenied("Only an owner of this appliance sets limits on users.")
        _nothing(subject)
    rows = tx.execute("SELECT id FROM users WHERE name = ?", (subject,))
    if not rows:
        raise unknown_user(subject)
    return Subject(scope, rows[0][0])


def _member(tx: Transaction, org: _Org, user_name: str) -> Subject:
    """A former member's limit stays, for their return, and can still be changed."""
    rows = tx.execute(
        "SELECT u.id FROM users u WHERE u.name = ? AND ("
        " EXISTS (SELECT 1 FROM members m WHERE m.org_id = ? AND m.user_id = u.id) OR EXISTS ("
        " SELECT 1 FROM spending_limits l WHERE l.scope = 'member'"
        " AND l.subject_id = ? || '/' || u.id))",
        (user_name, org.id, org.id),
    )
    if not rows:
        raise NotFound(f"There is no member named {shown(user_name)} in this org.")
    return Subject("member", f"{org.id}/{rows[0][0]}", org.tier)


def _group(tx: Transaction, subject: str, by: Principal) -> Subject:
    rows = tx.execute(
        "SELECT o.name, g.id FROM resource_groups g JOIN orgs o ON o.id = g.org_id WHERE g.id = ?",
        (subject,),
    )
    if not rows:
        _nothing(subject)
    org_name, group_id = rows[0]
    org = _org(tx, org_name, by) or _nothing(subject)
    return Subject("group", group_id, org.tier)


def _org(tx: Transaction, name_or_id: str, by: Principal) -> _Org | None:
    """The org, for its admins and owners; None where there is none that ``by`` may know of."""
    rows = tx.execute(
        "SELECT o.id, o.tier, m.role FROM orgs o"
        " LEFT JOIN members m ON m.org_id = o.id AND m.user_id = ?"
        " WHERE o.name = ? OR o.id = ?",
        (by.user_id, name_or_id, name_or_id),
    )
    if not rows:
        return None
    org_id, tier, role = rows[0]
    if by.owner or role == "admin":
        return _Org(org_id, tier)
    if role is None:
        return None
    raise PermissionDenied("Only an admin of this org sets its spending limits.")


def _nothing(name: str) -> NoReturn:
    raise NotFound(f"There is no org or resource group {shown(name)} that you may set a limit for.")
