"""What ``/api/limits`` takes and gives, for its handlers and for the CLI.

Imports no web framework. Times are milliseconds since 1970-01-01 UTC, money in answers is nano-USD.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from app.billing.budgets import SpendingLimit
from app.billing.limit_subjects import LimitScope
from app.identity.users import PAGE_LENGTH_MAX

SubjectName = Annotated[str, Meta(min_length=1, max_length=256)]


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or a query; what it does not know is refused."""


class NewLimit(_Asked, frozen=True):
    """``PUT /api/limits``. ``subject`` is a key's id or public part, a user's name, ``ORG/USER``
    for a member, a resource group's id, or the name of the user or org that pays. ``amount_usd``
    is a decimal, "0" to allow nothing."""

    scope: LimitScope
    subject: SubjectName
    amount_usd: Annotated[str, Meta(min_length=1, max_length=32)]


class LimitQuery(_Asked, frozen=True):
    """``DELETE /api/limits``; see NewLimit."""

    scope: LimitScope
    subject: SubjectName


class LimitPage(_Asked, frozen=True):
    """The query of the list: how many, and from behind which one."""

    after: Annotated[str, Meta(max_length=128)] = ""
    limit: Annotated[int, Meta(ge=1, le=PAGE_LENGTH_MAX)] = PAGE_LENGTH_MAX


class LimitList(msgspec.Struct, frozen=True):
    """By scope. ``next_after`` is the ``after`` of the next page, if there may be one."""

    data: list[SpendingLimit]
    next_after: str | None = None
