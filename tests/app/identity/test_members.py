"""Seats: one per member, counted as they come and go, and always an admin among them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import Conflict, NotFound
from tests.app.identity.rig import Rig
from tests.app.identity.tenants import Tenants, over


@pytest.fixture
def tenants(rig: Rig) -> Tenants:
    return over(rig)


async def test_members_come_and_go_and_the_seats_with_them(tenants: Tenants) -> None:
    org = await tenants.org()
    await tenants.users("bob")
    member = await tenants.members.add(org.id, "BOB")
    assert (member.user_name, member.role, member.org_id) == ("bob", "member", org.id)
    assert await tenants.members.role_of(org.id, member.user_id) == "member"
    assert (await tenants.orgs.named("acme")).seats == 2
    assert await tenants.members.remove(org.id, "bob") == member
    assert await tenants.members.role_of(org.id, member.user_id) is None
    assert (await tenants.orgs.named("acme")).seats == 1


async def test_nobody_has_two_seats(tenants: Tenants) -> None:
    org = await tenants.org()
    with pytest.raises(Conflict, match="ann is a member"):
        await tenants.members.add(org.id, "Ann")
    assert (await tenants.orgs.named("acme")).seats == 1


async def test_unknown_users_and_those_of_other_orgs(tenants: Tenants) -> None:
    org, other = await tenants.org(), await tenants.org("other", "olga")
    with pytest.raises(NotFound, match="no user named 'nobody'"):
        await tenants.members.add(org.id, "nobody")
    for name in ("nobody", "olga"):
        with pytest.raises(NotFound, match=f"no member named '{name}'"):
            await tenants.members.remove(org.id, name)
        with pytest.raises(NotFound, match=f"no member named '{name}'"):
            await tenants.members.set_role(org.id, name, "admin")
    assert await tenants.names(other) == ["olga"]


async def test_the_last_admin_stays(tenants: Tenants) -> None:
    org = await tenants.org()
    await tenants.users("bob")
    await tenants.members.add(org.id, "bob")
    with pytest.raises(Conflict, match="last admin") as refused:
        await tenants.members.remove(org.id, "ann")
    assert refused.value.code == "last_admin"
    with pytest.raises(Conflict, match="last admin"):
        await tenants.members.set_role(org.id, "ann", "member")
    assert (await tenants.members.set_role(org.id, "bob", "admin")).role == "admin"
    assert (await tenants.members.set_role(org.id, "ann", "member")).role == "member"
    with pytest.raises(Conflict, match="last admin"):
        await tenants.members.remove(org.id, "bob")


async def test_who_leaves_an_org_leaves_its_groups_and_no_others(tenants: Tenants) -> None:
    org, other = await tenants.org(), await tenants.org("other", "olga")
    await tenants.users("bob")
    places = []
    for each in (org, other):
        await tenants.members.add(each.id, "bob")
        group = await tenants.groups.add(each.id, "research")
        await tenants.groups.add_member(each.id, "research", "bob")
        places.append(group)
    await tenants.members.remove(org.id, "bob")
    await tenants.members.add(org.id, "bob")
    assert await tenants.groups.members(places[0]) == []
    assert [each.user_name for each in await tenants.groups.members(places[1])] == ["bob"]


PEOPLE = ("ann", "bob", "cat")
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "admin", "member"]),
        st.sampled_from(PEOPLE),
    ),
    max_size=12,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_whatever_is_done_seats_are_members_and_one_is_an_admin(
    rig: Rig, steps: list[tuple[str, str]]
) -> None:
    tenants = over(rig)
    if not await rig.users.list():
        await tenants.users(*PEOPLE)
    org = await tenants.orgs.add(f"org{len(await tenants.orgs.list())}", "team", "ann")
    expected = {"ann": "admin"}
    for step, name in steps:
        after = dict(expected)
        if step == "add":
            after[name] = "member"
        elif step == "remove":
            after.pop(name, None)
        elif name in after:
            after[name] = step
        allowed = (name in expected) != (step == "add") and "admin" in after.values()
        try:
            if step == "add":
                await tenants.members.add(org.id, name)
            elif step == "remove":
                await tenants.members.remove(org.id, name)
            else:
                await tenants.members.set_role(
                    org.id, name, "admin" if step == "admin" else "member"
                )
        except (Conflict, NotFound):
            assert not allowed
        else:
            assert allowed
            expected = after
        found = {member.user_name: member.role for member in await tenants.members.list(org.id)}
        assert found == expected
        assert (await tenants.orgs.named(org.id)).seats == len(expected)
