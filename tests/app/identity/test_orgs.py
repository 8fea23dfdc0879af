"""Orgs: named like users, on tiers that are for orgs, and never without an admin."""

import pytest

from app.errors import Conflict, InvalidRequest, NotFound
from app.ids import new_org_id, new_user_id
from tests.app.identity.rig import Rig
from tests.app.identity.tenants import Tenants, over


@pytest.fixture
def tenants(rig: Rig) -> Tenants:
    return over(rig)


async def test_a_new_org_has_its_admin_as_its_only_seat(tenants: Tenants) -> None:
    org = await tenants.org()
    assert (org.name, org.tier, org.default_payer, org.seats) == ("acme", "team", False, 1)
    assert org.id.startswith("org_")
    assert org.created_at_ms == tenants.rig.clock.wall_ms
    [admin] = await tenants.members.list(org.id)
    assert (admin.user_name, admin.role) == ("ann", "admin")


async def test_an_org_is_found_by_name_in_any_case_and_by_id(tenants: Tenants) -> None:
    org = await tenants.org()
    assert await tenants.orgs.named("ACME") == org == await tenants.orgs.named(org.id)
    with pytest.raises(NotFound, match="no org named 'other'"):
        await tenants.orgs.named("other")


async def test_users_and_orgs_share_their_names(tenants: Tenants) -> None:
    await tenants.org()
    with pytest.raises(Conflict, match="org named Acme already") as taken:
        await tenants.rig.users.add("Acme", "free")
    assert taken.value.param == "name"
    with pytest.raises(Conflict, match="user named ANN already"):
        await tenants.orgs.add("ANN", "team", "ann")
    with pytest.raises(Conflict, match="org named aCMe already"):
        await tenants.orgs.add("aCMe", "team", "ann")
    assert len(await tenants.orgs.list()) == 1


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a b", "a" * 65, "ä", "org_" + "0" * 32])
async def test_a_bad_name_is_refused(tenants: Tenants, name: str) -> None:
    await tenants.users("ann")
    with pytest.raises(InvalidRequest, match="An org's name") as refused:
        await tenants.orgs.add(name, "team", "ann")
    assert refused.value.param == "name"


async def test_no_name_looks_like_an_id(tenants: Tenants) -> None:
    for name in (new_user_id(), new_org_id().upper()):
        with pytest.raises(InvalidRequest, match="look like an id"):
            await tenants.rig.users.add(name, "free")


async def test_an_org_is_on_a_tier_for_orgs_only(tenants: Tenants) -> None:
    org = await tenants.org()
    with pytest.raises(InvalidRequest, match=r"no tier 'free' for orgs.*team, enterprise\."):
        await tenants.orgs.set_tier(org.id, "free")
    with pytest.raises(InvalidRequest, match="for orgs"):
        await tenants.orgs.add("other", "pro", "ann")
    assert (await tenants.orgs.set_tier(org.id, "enterprise")).tier == "enterprise"
    assert (await tenants.orgs.named("acme")).tier == "enterprise"
    with pytest.raises(NotFound):
        await tenants.orgs.set_tier("org_0", "team")


async def test_an_org_without_a_known_admin_is_not_made(tenants: Tenants) -> None:
    with pytest.raises(NotFound, match="no user named 'nobody'"):
        await tenants.orgs.add("acme", "team", "nobody")
    assert await tenants.orgs.list() == []


async def test_default_payer_on_and_off(tenants: Tenants) -> None:
    org = await tenants.org()
    assert (await tenants.orgs.set_default_payer(org.id, True)).default_payer
    assert (await tenants.orgs.named("acme")).default_payer
    assert not (await tenants.orgs.set_default_payer(org.id, False)).default_payer


async def test_lists_come_in_pages_and_a_members_are_those_of_the_member(tenants: Tenants) -> None:
    made = [await tenants.org(f"org{n}", f"admin{n}") for n in range(3)]
    await tenants.members.add(made[2].id, "admin0")
    first = await tenants.orgs.list(limit=2)
    assert [org.name for org in first] == ["org0", "org1"]
    rest = await tenants.orgs.list(after=first[-1].id)
    assert [org.name for org in rest] == ["org2"]
    admin0 = await tenants.rig.users.by_name("admin0")
    assert [org.name for org in await tenants.orgs.of_member(admin0.id)] == ["org0", "org2"]
    assert [org.name for org in await tenants.orgs.of_member(admin0.id, after=made[0].id)] == [
        "org2"
    ]
