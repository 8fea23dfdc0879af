"""What can be confined, as people name it, and who may do it."""

from typing import Literal, NoReturn

from app.errors import NotFound, PermissionDenied
from app.identity.key_format import public_part
from app.identity.names import shown
from app.identity.principal import Principal
from app.identity.users import unknown_user
from app.storage.database import Transaction

SubjectKind = Literal["key", "user", "org"]


def find_subject(tx: Transaction, kind: SubjectKind, subject: str, by: Principal) -> str:
    """The id of what ``subject`` names, if ``by`` may confine it.

    A key is named by its id or public part, a user by name, an org by name or id. Raises NotFound,
    also for what ``by`` may not know of; PermissionDenied for what they may only look at.
    """
    if kind == "key":
        return _key(tx, subject, by)
    if kind == "user":
        return _user(tx, subject, by)
    return _org(tx, subject, by)


def _key(tx: Transaction, subject: str, by: Principal) -> str:
    which = public_part(subject)
    rows = tx.execute(
        "SELECT id FROM api_keys WHERE (id = ? OR prefix = ?) AND (? OR user_id = ?)",
        (which, which, by.owner, by.user_id),
    )
    if not rows:
        raise NotFound("There is no such key; `turnpike keys list` shows them.")
    key_id: str = rows[0][0]
    return key_id


def _user(tx: Transaction, subject: str, by: Principal) -> str:
    if not by.owner:
        raise PermissionDenied("Only an owner of this appliance confines users.")
    rows = tx.execute("SELECT id FROM users WHERE name = ?", (subject,))
    if not rows:
        raise unknown_user(subject)
    user_id: str = rows[0][0]
    return user_id


def _org(tx: Transaction, subject: str, by: Principal) -> str:
    rows = tx.execute(
        "SELECT o.id, m.role FROM orgs o"
        " LEFT JOIN members m ON m.org_id = o.id AND m.user_id = ? WHERE o.name = ? OR o.id = ?",
        (by.user_id, subject, subject),
    )
    if not rows:
        _no_org(subject)
    org_id: str
    org_id, role = rows[0]
    if by.owner or role == "admin":
        return org_id
    if role is None:
        _no_org(subject)
    raise PermissionDenied("Only an admin of this org confines it.")


def _no_org(name: str) -> NoReturn:
    raise NotFound(f"There is no org named {shown(name)} that you may confine.")
