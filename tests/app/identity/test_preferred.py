"""Each user's own order of providers."""

import pytest

from app.errors import InvalidRequest, NotFound
from app.identity.preferred import PreferredOrders
from tests.app.identity.rig import Rig


async def test_an_order_is_set_replaced_and_forgotten(rig: Rig) -> None:
    orders = PreferredOrders(rig.database, rig.clock)
    await orders.load()
    bob = await rig.users.add("bob", "free")
    assert (orders.of(bob.id), (await orders.shown("bob")).providers) == ((), [])
    for providers in (["two", "one"], ["one", "local", "two"]):
        found = await orders.set("BOB", providers)
        assert (found.user_id, found.user, found.providers) == (bob.id, "bob", providers)
        fresh = PreferredOrders(rig.database, rig.clock)
        await fresh.load()
        assert orders.of(bob.id) == fresh.of(bob.id) == tuple(providers)
    assert orders.of("another") == ()
    assert (await orders.clear("bob")).providers == []
    assert orders.of(bob.id) == ()
    with pytest.raises(NotFound, match="no order"):
        await orders.clear("bob")


async def test_orders_are_each_users_own(rig: Rig) -> None:
    orders = PreferredOrders(rig.database, rig.clock)
    ann, bob = await rig.users.add("ann", "free"), await rig.users.add("bob", "free")
    await orders.set("ann", ["one"])
    await orders.set("bob", ["two"])
    assert (orders.of(ann.id), orders.of(bob.id)) == (("one",), ("two",))


@pytest.mark.parametrize(
    "providers", [[], ["one", "one"], ["One"], ["a b"], [""], [f"p{n}" for n in range(65)]]
)
async def test_what_is_no_order_is_refused(rig: Rig, providers: list[str]) -> None:
    await rig.users.add("bob", "free")
    orders = PreferredOrders(rig.database, rig.clock)
    with pytest.raises(InvalidRequest):
        await orders.set("bob", providers)


async def test_an_unknown_user(rig: Rig) -> None:
    orders = PreferredOrders(rig.database, rig.clock)
    for asked in (orders.set("nobody", ["one"]), orders.clear("nobody"), orders.shown("nobody")):
        with pytest.raises(NotFound):
            await asked
