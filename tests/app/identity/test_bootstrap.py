"""The first start makes an owner and one key, once."""

from app.identity.bootstrap import bootstrap_owner
from app.identity.users import UserStore
from tests.app.identity.rig import Rig


async def test_the_first_start_makes_an_owner_with_a_key_that_works(rig: Rig) -> None:
    key = await bootstrap_owner(rig.users, rig.keys)
    assert key is not None
    principal = await rig.ring.authenticate(key)
    assert (principal.user_name, principal.owner) == ("owner", True)
    assert (await rig.users.by_name("owner")).tier == "pro"
    assert [info.name for info in await rig.keys.list()] == ["first start"]


async def test_where_no_key_may_be_shown_none_is_made(rig: Rig) -> None:
    assert await bootstrap_owner(rig.users, rig.keys, make_key=False) is None
    assert (await rig.users.by_name("owner")).tier == "pro"
    assert await rig.keys.list() == []
    key = await bootstrap_owner(rig.users, rig.keys)
    assert key is not None, "the next start in a terminal shows one"


async def test_the_second_start_makes_nothing(rig: Rig) -> None:
    assert await bootstrap_owner(rig.users, rig.keys) is not None
    assert await bootstrap_owner(rig.users, rig.keys) is None
    assert len(await rig.users.list()) == len(await rig.keys.list()) == 1


async def test_revoked_keys_do_not_bring_the_first_start_back(rig: Rig) -> None:
    key = await bootstrap_owner(rig.users, rig.keys)
    assert key is not None
    await rig.keys.revoke(key)
    assert await bootstrap_owner(rig.users, rig.keys) is None


async def test_users_added_before_the_first_start_do_not_take_the_owners_place(rig: Rig) -> None:
    await rig.users.add("alice", "free")
    await rig.keys.create("alice", "laptop")
    key = await bootstrap_owner(rig.users, rig.keys)
    assert key is not None
    assert (await rig.ring.authenticate(key)).user_name == "owner"
    assert await bootstrap_owner(rig.users, rig.keys) is None


async def test_a_member_who_has_the_owners_name_stays_a_member(rig: Rig) -> None:
    await rig.users.add("owner", "free")
    assert await bootstrap_owner(rig.users, rig.keys) is None
    assert [user.role for user in await rig.users.list()] == ["member"]


async def test_a_first_start_cut_short_between_user_and_key_is_finished(rig: Rig) -> None:
    await rig.users.add("owner", "pro", role="owner")
    key = await bootstrap_owner(rig.users, rig.keys)
    assert key is not None
    assert (await rig.ring.authenticate(key)).owner
    assert len(await rig.users.list()) == 1


async def test_without_a_tier_named_pro_the_first_one_is_taken(rig: Rig) -> None:
    users = UserStore(rig.database, rig.clock, ["gold", "silver"])
    await bootstrap_owner(users, rig.keys)
    assert (await users.by_name("owner")).tier == "gold"
