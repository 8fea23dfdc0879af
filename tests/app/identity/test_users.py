"""Users: names, tiers, pages."""

import pytest

from app.errors import Conflict, InvalidRequest, NotFound
from tests.app.identity.rig import Rig


async def test_a_user_is_found_by_id_and_by_name(rig: Rig) -> None:
    added = await rig.users.add("alice", "free")
    assert added.role == "member"
    assert added.created_at_ms == rig.clock.now_ms()
    assert await rig.users.get(added.id) == added
    assert await rig.users.by_name("alice") == added
    assert await rig.users.by_name("ALICE") == added


async def test_a_name_is_taken_in_every_case_of_its_letters(rig: Rig) -> None:
    await rig.users.add("alice", "free")
    for name in ("alice", "Alice"):
        with pytest.raises(Conflict, match=name):
            await rig.users.add(name, "pro")
    assert len(await rig.users.list()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "-a",
        ".hidden",
        "a/b",
        "a\x00",
        "a\n",
        "ж",
        "x" * 65,
        "'; DROP TABLE users;--",
    ],
)
async def test_a_bad_name_is_refused_with_the_rule(rig: Rig, name: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 64 characters") as caught:
        await rig.users.add(name, "free")
    assert caught.value.param == "name"
    assert caught.value.message.isprintable()
    assert await rig.users.list() == []


@pytest.mark.parametrize("name", ["a", "A-1", "ann@example.org", "x" * 64, "0+0_0.0"])
async def test_a_usual_name_is_taken(rig: Rig, name: str) -> None:
    assert (await rig.users.add(name, "pro")).name == name


async def test_an_unknown_tier_is_refused_with_the_tiers_there_are(rig: Rig) -> None:
    with pytest.raises(InvalidRequest, match=r"no tier 'gold'; tiers: free, pro\."):
        await rig.users.add("alice", "gold")
    await rig.users.add("alice", "free")
    with pytest.raises(InvalidRequest, match="tiers: free, pro"):
        await rig.users.set_tier("alice", "gold")
    assert (await rig.users.by_name("alice")).tier == "free"


async def test_a_role_is_owner_or_member(rig: Rig) -> None:
    assert (await rig.users.add("root", "pro", role="owner")).role == "owner"
    with pytest.raises(InvalidRequest, match="owner, member"):
        await rig.users.add("alice", "free", role="admin")


async def test_nobody_is_not_found(rig: Rig) -> None:
    with pytest.raises(NotFound):
        await rig.users.get("user_0")
    with pytest.raises(NotFound, match="'bob'"):
        await rig.users.by_name("bob")
    with pytest.raises(NotFound, match="'bob'"):
        await rig.users.set_tier("bob", "pro")


async def test_set_tier_changes_only_that_user(rig: Rig) -> None:
    await rig.users.add("alice", "free")
    await rig.users.add("bob", "free")
    assert (await rig.users.set_tier("alice", "pro")).tier == "pro"
    assert [(user.name, user.tier) for user in await rig.users.list()] == [
        ("alice", "pro"),
        ("bob", "free"),
    ]


async def test_pages_hold_everybody_once_in_order(rig: Rig) -> None:
    names = [f"user{number}" for number in range(25)]
    for name in names:
        await rig.users.add(name, "free")
    seen: list[str] = []
    after = ""
    while page := await rig.users.list(after=after, limit=10):
        assert len(page) <= 10
        seen += [user.name for user in page]
        after = page[-1].id
    assert seen == names
