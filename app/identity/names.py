"""The names of users and orgs, which share one namespace: a bill goes to a name."""

import re

from app.errors import Conflict, InvalidRequest
from app.storage.database import Transaction

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_ID = re.compile(r"(?:user|org|group|key)_[0-9a-f]{32}", re.IGNORECASE)


def check_name(whose: str, name: str) -> None:
    """Raise InvalidRequest for a name that ``whose`` ("A user", say) may not have."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{whose}'s name has 1 to 64 characters: a letter or digit first, then letters, digits"
            f" and . _ @ + - (found {shown(name)}).",
            param="name",
        )
    if looks_like_id(name):
        raise InvalidRequest(
            f"{whose}'s name may not look like an id (found {shown(name)}). Choose another one.",
            param="name",
        )


def check_free(tx: Transaction, name: str) -> None:
    """Raise Conflict where a user or an org has the name, in any case; within the write."""
    for table, what in (("users", "a user"), ("orgs", "an org")):
        if tx.execute(f"SELECT 1 FROM {table} WHERE name = ?", (name,)):  # noqa: S608 (ours)
            raise Conflict(
                f"There is {what} named {name} already; users and orgs share their names.",
                param="name",
            )


def is_name(text: str) -> bool:
    """Whether a user or an org could be called this, or have it as an id."""
    return _NAME.fullmatch(text) is not None


def looks_like_id(text: str) -> bool:
    """Whether the text has the form of an id: names never do."""
    return _ID.fullmatch(text) is not None


def shown(text: str) -> str:
    """What a person typed, cut and quoted so that it can stand in a message."""
    return ascii(text if len(text) <= 64 else text[:61] + "...")
