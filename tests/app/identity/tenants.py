"""Orgs over the identity room's rig: who is in which, in a few words."""

from dataclasses import dataclass

from app.identity.groups import GroupStore
from app.identity.members import MemberStore
from app.identity.orgs import Org, OrgStore
from tests.app.identity.rig import Rig


@dataclass
class Tenants:
    """The stores of orgs over one rig."""

    rig: Rig
    orgs: OrgStore
    members: MemberStore
    groups: GroupStore

    async def users(self, *names: str) -> None:
        """Users on the free tier."""
        for name in names:
            await self.rig.users.add(name, "free")

    async def org(self, name: str = "acme", admin: str = "ann") -> Org:
        """An org with its admin, a new user."""
        await self.users(admin)
        return await self.orgs.add(name, "team", admin)

    async def names(self, org: Org) -> list[str]:
        """The names of an org's members, in order."""
        return sorted(member.user_name for member in await self.members.list(org.id))


def over(rig: Rig) -> Tenants:
    """Fresh stores over a rig."""
    database, clock = rig.database, rig.clock
    return Tenants(
        rig,
        OrgStore(database, clock, ["team", "enterprise"]),
        MemberStore(database, clock),
        GroupStore(database, clock),
    )
