"""What the ``/api`` surface takes and gives, for its handlers and for its client, the CLI.

Imports no web framework. Times are milliseconds since 1970-01-01 UTC, money is nano-USD.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from app.identity.keys import KeyInfo
from app.identity.users import PAGE_LENGTH_MAX, Role, User
from plugins.contract import Price

Name = Annotated[str, Meta(min_length=1, max_length=256)]


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or a query; what it does not know is refused."""


class NewUser(_Asked, frozen=True):
    """``POST /api/users``."""

    name: Name
    tier: Name
    role: Role = "member"


class NewTier(_Asked, frozen=True):
    """``PUT /api/users/{name}/tier``."""

    tier: Name


class NewKey(_Asked, frozen=True):
    """``POST /api/keys``."""

    user: Name
    name: Name = "default"


class Page(_Asked, frozen=True):
    """The query of lists: how many, and behind which id."""

    after: Annotated[str, Meta(max_length=64)] = ""
    limit: Annotated[int, Meta(ge=1, le=PAGE_LENGTH_MAX)] = PAGE_LENGTH_MAX


class UserList(msgspec.Struct, frozen=True):
    """Oldest first. ``next_after`` is the ``after`` of the next page, if there may be one."""

    data: list[User]
    next_after: str | None = None


class KeyList(msgspec.Struct, frozen=True):
    """Oldest first, revoked ones too."""

    data: list[KeyInfo]
    next_after: str | None = None


class CreatedKey(KeyInfo, frozen=True, kw_only=True):
    """The only answer that ever holds a key."""

    key: str


class UpcomingPrice(msgspec.Struct, frozen=True):
    """A price that is not in force yet. ``from_ms``: milliseconds since 1970-01-01 UTC."""

    from_ms: int
    price: Price


class ModelLine(msgspec.Struct, frozen=True, kw_only=True):
    """One model as served by one provider.

    ``status`` is live, error (its circuit is open) or unpriced: then ``price`` is null and nobody
    can call it before one of ``upcoming`` is in force.
    """

    model: str
    provider: str
    tasks: list[str]
    status: str
    price: Price | None
    upcoming: list[UpcomingPrice] = []
    context_length: int | None
    output_tokens_max: int | None


class ModelList(msgspec.Struct, frozen=True):
    """Model by model, in the order in which the providers are tried."""

    data: list[ModelLine]


class Restarting(msgspec.Struct, frozen=True, kw_only=True):
    """A restart that has begun: in which process, and how long running calls may take to end."""

    pid: int
    drain_seconds_max: float


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload changed, and which changed tables wait for a restart."""

    changed: list[str]
    needs_restart: list[str]
