"""What the org routes of ``/api`` take and give, for their handlers and for the CLI.

Imports no web framework. Times are milliseconds since 1970-01-01 UTC.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.admin.wire import Name
from app.billing.switches import SwitchedOff, SwitchKind
from app.identity.groups import GroupMember, ResourceGroup
from app.identity.members import Member, MemberRole
from app.identity.orgs import Org


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or a query; what it does not know is refused."""


class NewOrg(_Asked, frozen=True):
    """``POST /api/orgs``: the user ``admin`` is the first member."""

    name: Name
    tier: Name
    admin: Name
    default_payer: bool = False


class DefaultPayer(_Asked, frozen=True):
    """``PUT /api/orgs/{org}/default-payer``."""

    default_payer: bool


class NewMember(_Asked, frozen=True):
    """``POST /api/orgs/{org}/members``."""

    user: Name
    role: MemberRole = "member"


class NewRole(_Asked, frozen=True):
    """``PUT /api/orgs/{org}/members/{user}/role``."""

    role: MemberRole


class NewGroup(_Asked, frozen=True):
    """``POST /api/orgs/{org}/groups``."""

    name: Name


class NewGroupMember(_Asked, frozen=True):
    """``POST /api/orgs/{org}/groups/{group}/members``."""

    user: Name


class NewSwitch(_Asked, frozen=True):
    """``PUT /api/orgs/{org}/switches``: the provider or model to switch off."""

    kind: SwitchKind
    name: Name
    reason: Annotated[str, Meta(min_length=1, max_length=1000)]


class SwitchQuery(_Asked, frozen=True):
    """``DELETE /api/orgs/{org}/switches``: the provider or model to switch on again."""

    kind: SwitchKind
    name: Name


class OrgList(msgspec.Struct, frozen=True):
    """Oldest first. ``next_after`` is the ``after`` of the next page, if there may be one."""

    data: list[Org]
    next_after: str | None = None


class MemberList(msgspec.Struct, frozen=True):
    """In the order in which the users were made; pages as in OrgList."""

    data: list[Member]
    next_after: str | None = None


class GroupList(msgspec.Struct, frozen=True):
    """Oldest first; pages as in OrgList."""

    data: list[ResourceGroup]
    next_after: str | None = None


class GroupMemberList(msgspec.Struct, frozen=True):
    """In the order in which the users were made; pages as in OrgList."""

    data: list[GroupMember]
    next_after: str | None = None


class SwitchList(msgspec.Struct, frozen=True):
    """All that the org has switched off."""

    data: list[SwitchedOff]
