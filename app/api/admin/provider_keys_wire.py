"""What the routes of provider keys and their master key take and give, for handlers and the CLI.

Imports no web framework. Times are milliseconds since 1970-01-01 UTC.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.admin.wire import Name
from app.identity.provider_key_rows import ProviderKeyInfo


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or a query; what it does not know is refused."""


class NewProviderKey(_Asked, frozen=True):
    """``PUT …/provider-keys/{provider}``: the key itself, which no answer ever holds.

    ``paid_fallback``: when it fails, the call may go on at the payer's expense.
    """

    secret: Annotated[str, Meta(min_length=1, max_length=4096)]
    paid_fallback: bool = False

    def __repr__(self) -> str:
        return "NewProviderKey(...)"


class WhoseKeys(_Asked, frozen=True):
    """The query of ``/api/provider-keys``: owners of the appliance may name another user."""

    user: Name | None = None


class ProviderKeyList(msgspec.Struct, frozen=True):
    """All keys of a user or an org, by provider."""

    data: list[ProviderKeyInfo]


class Forgotten(msgspec.Struct, frozen=True):
    """How many provider keys were removed because no master key opens them."""

    removed: int
