"""Resource groups: seen within their org only, for its members only."""

import pytest

from app.errors import Conflict, InvalidRequest, NotFound
from tests.app.identity.rig import Rig
from tests.app.identity.tenants import Tenants, over


@pytest.fixture
def tenants(rig: Rig) -> Tenants:
    return over(rig)


async def test_a_group_is_made_found_and_ended(tenants: Tenants) -> None:
    org = await tenants.org()
    group = await tenants.groups.add(org.id, "research")
    assert group.id.startswith("group_")
    assert await tenants.groups.list(org.id) == [group]
    assert await tenants.groups.named(org.id, "Research") == group
    assert await tenants.groups.named(org.id, group.id) == group
    await tenants.groups.add_member(org.id, group.id, "ann")
    assert await tenants.groups.remove(org.id, "research") == group
    assert await tenants.groups.list(org.id) == []
    with pytest.raises(NotFound, match="no resource group 'research'"):
        await tenants.groups.named(org.id, "research")


async def test_names_are_one_orgs_own(tenants: Tenants) -> None:
    org, other = await tenants.org(), await tenants.org("other", "olga")
    group = await tenants.groups.add(org.id, "research")
    with pytest.raises(Conflict, match="Research already"):
        await tenants.groups.add(org.id, "Research")
    assert (await tenants.groups.add(other.id, "research")).id != group.id
    with pytest.raises(InvalidRequest, match="A resource group's name"):
        await tenants.groups.add(org.id, "re search")


async def test_only_members_of_the_org_can_be_in_its_groups(tenants: Tenants) -> None:
    org = await tenants.org()
    await tenants.users("bob")
    group = await tenants.groups.add(org.id, "research")
    for name in ("bob", "nobody"):
        with pytest.raises(NotFound, match=f"no member named '{name}'"):
            await tenants.groups.add_member(org.id, group.id, name)
    await tenants.members.add(org.id, "bob")
    added = await tenants.groups.add_member(org.id, group.id, "bob")
    assert added == await tenants.groups.add_member(org.id, "research", "BOB")
    assert await tenants.groups.members(group) == [added]
    assert await tenants.groups.remove_member(org.id, group.id, "bob") == added
    with pytest.raises(NotFound, match="bob is not in"):
        await tenants.groups.remove_member(org.id, group.id, "bob")


async def test_another_org_cannot_touch_a_group_by_its_id(tenants: Tenants) -> None:
    org, other = await tenants.org(), await tenants.org("other", "olga")
    group = await tenants.groups.add(org.id, "research")
    for act in (
        tenants.groups.named(other.id, group.id),
        tenants.groups.remove(other.id, group.id),
        tenants.groups.add_member(other.id, group.id, "olga"),
        tenants.groups.remove_member(other.id, group.id, "ann"),
    ):
        with pytest.raises(NotFound, match="no resource group"):
            await act
    assert await tenants.groups.list(org.id) == [group]


async def test_pages(tenants: Tenants) -> None:
    org = await tenants.org()
    made = [await tenants.groups.add(org.id, f"g{n}") for n in range(3)]
    assert await tenants.groups.list(org.id, limit=2) == made[:2]
    assert await tenants.groups.list(org.id, after=made[1].id) == made[2:]
