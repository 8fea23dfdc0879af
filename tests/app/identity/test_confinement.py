"""Who is confined to what, who may say so, and that it holds at once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from app.billing.payers import Payers
from app.errors import InvalidRequest, NotFound, PermissionDenied
from app.identity.confinement import Confinements
from app.identity.principal import Principal
from tests.app.identity.rig import Rig
from tests.app.identity.tenants import Tenants, over

OWNER = Principal(user_id="operator", user_name="operator", key_id="operator", owner=True)
LOCAL, EU = frozenset({"local"}), frozenset({"eu"})


@dataclass
class Walls:
    """Confinements over a rig with some users and an org."""

    rig: Rig
    tenants: Tenants
    confinements: Confinements

    async def principal(self, name: str) -> Principal:
        """A member with a key of their own."""
        return await self.rig.ring.authenticate(await self.rig.member(name))

    async def again(self) -> Confinements:
        """As after a new start."""
        fresh = Confinements(self.rig.database, self.rig.clock)
        await fresh.load()
        return fresh


@pytest.fixture
async def walls(rig: Rig) -> AsyncIterator[Walls]:
    confinements = Confinements(rig.database, rig.clock)
    await confinements.load()
    yield Walls(rig, over(rig), confinements)


async def test_nobody_is_confined_at_first(walls: Walls) -> None:
    bob = await walls.principal("bob")
    assert walls.confinements.labels_for(bob.user_id, bob.key_id) == ()
    assert walls.confinements.for_payer("org_x") == ()
    assert await walls.confinements.list(OWNER) == []


async def test_key_and_user_hold_side_by_side_and_survive_a_restart(walls: Walls) -> None:
    bob, confinements = await walls.principal("bob"), walls.confinements
    await confinements.confine("user", "BOB", ["local", "eu"], OWNER)
    assert confinements.labels_for(bob.user_id, bob.key_id) == (LOCAL | EU,)
    assert confinements.labels_for(bob.user_id, "another key") == (LOCAL | EU,)
    await confinements.confine("key", bob.key_id, ["eu"], OWNER)
    for each in (confinements, await walls.again()):
        assert each.labels_for(bob.user_id, bob.key_id) == (EU, LOCAL | EU)
    assert confinements.labels_for("another user", bob.key_id) == (EU,)
    released = await confinements.release("key", bob.key_id, OWNER)
    assert released.labels == ["eu"]
    for each in (confinements, await walls.again()):
        assert each.labels_for(bob.user_id, bob.key_id) == (LOCAL | EU,)


async def test_a_key_is_named_by_its_public_part(walls: Walls) -> None:
    bearer = await walls.rig.member("bob")
    bob = await walls.rig.ring.authenticate(bearer)
    found = await walls.confinements.confine("key", bearer, ["local"], bob)
    assert found.subject.startswith("tp_")
    assert bearer not in repr(found)
    assert (found.subject_id, found.set_by, found.by_owner) == (bob.key_id, "bob", False)
    assert walls.confinements.labels_for(bob.user_id, bob.key_id) == (LOCAL,)


async def test_a_user_tightens_own_keys_and_never_widens_them(walls: Walls) -> None:
    bob, ann = await walls.principal("bob"), await walls.principal("ann")
    confinements = walls.confinements
    with pytest.raises(NotFound):
        await confinements.confine("key", bob.key_id, ["local"], ann)
    with pytest.raises(PermissionDenied):
        await confinements.confine("user", "bob", ["local"], bob)
    await confinements.confine("key", bob.key_id, ["local", "eu"], bob)
    await confinements.confine("key", bob.key_id, ["local"], bob)
    for wider in (["local", "eu"], ["eu"]):
        with pytest.raises(PermissionDenied, match="only an owner"):
            await confinements.confine("key", bob.key_id, wider, bob)
    with pytest.raises(PermissionDenied):
        await confinements.release("key", bob.key_id, bob)
    assert confinements.labels_for(bob.user_id, bob.key_id) == (LOCAL,)
    await confinements.confine("key", bob.key_id, ["eu"], OWNER)
    assert confinements.labels_for(bob.user_id, bob.key_id) == (EU,)


async def test_an_admin_confines_the_org_and_no_more_than_an_owner_allows(walls: Walls) -> None:
    org = await walls.tenants.org("acme", "ann")
    ann = Principal(user_id=(await walls.rig.users.by_name("ann")).id, user_name="ann", key_id="k")
    eve, confinements = await walls.principal("eve"), walls.confinements
    for stranger in ("acme", org.id):
        with pytest.raises(NotFound):
            await confinements.confine("org", stranger, ["local"], eve)
    await walls.tenants.members.add(org.id, "eve")
    with pytest.raises(PermissionDenied, match="admin"):
        await confinements.confine("org", "acme", ["local"], eve)
    await confinements.confine("org", "Acme", ["local"], ann)
    assert confinements.for_payer(org.id) == (LOCAL,)
    await confinements.release("org", org.id, ann)  # the admin's own word can be taken back
    assert confinements.for_payer(org.id) == ()
    await confinements.confine("org", "acme", ["local", "eu"], OWNER)
    await confinements.confine("org", "acme", ["eu"], ann)
    for refused in (
        confinements.confine("org", "acme", ["eu", "local"], ann),
        confinements.release("org", "acme", ann),
    ):
        with pytest.raises(PermissionDenied):
            await refused
    assert confinements.for_payer(org.id) == (EU,)


@pytest.mark.parametrize("labels", [[], ["Local"], ["a b"], [""], ["x" * 33], ["é"]])
async def test_what_is_no_label_is_refused(walls: Walls, labels: list[str]) -> None:
    await walls.principal("bob")
    with pytest.raises(InvalidRequest):
        await walls.confinements.confine("user", "bob", labels, OWNER)


async def test_unknown_subjects(walls: Walls) -> None:
    for kind in ("key", "user", "org"):
        with pytest.raises(NotFound):
            await walls.confinements.confine(kind, "nobody", ["local"], OWNER)
    await walls.principal("bob")
    with pytest.raises(NotFound, match="not confined"):
        await walls.confinements.release("user", "bob", OWNER)


async def test_everybody_sees_their_own(walls: Walls) -> None:
    org = await walls.tenants.org("acme", "ann")
    bob, eve = await walls.principal("bob"), await walls.principal("eve")
    await walls.tenants.members.add(org.id, "eve")
    for kind, subject in (("key", bob.key_id), ("user", "bob"), ("org", "acme")):
        await walls.confinements.confine(kind, subject, ["local"], OWNER)  # type: ignore[arg-type]

    async def seen(by: Principal) -> list[str]:
        return [each.kind for each in await walls.confinements.list(by)]

    assert await seen(OWNER) == ["key", "org", "user"]
    assert await seen(bob) == ["key", "user"]
    assert await seen(eve) == ["org"]


async def test_a_change_whose_asker_leaves_is_in_force_all_the_same(walls: Walls) -> None:
    bob = await walls.principal("bob")
    asking = asyncio.create_task(walls.confinements.confine("user", "bob", ["local"], OWNER))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await walls.confinements.confine("key", bob.key_id, ["eu"], OWNER)  # comes behind it
    assert walls.confinements.labels_for(bob.user_id, bob.key_id) == (EU, LOCAL)


class TestWhoWillPay:
    """Whoever is going to pay is found beforehand, and what they are confined to holds."""

    async def test_nobody_asks_who_pays_while_no_org_is_confined(self, walls: Walls) -> None:
        await walls.principal("bob")
        await walls.confinements.confine("user", "bob", ["local"], OWNER)
        assert not walls.confinements.of_orgs
        await walls.tenants.org("acme", "ann")
        await walls.confinements.confine("org", "acme", ["local"], OWNER)
        assert walls.confinements.of_orgs

    async def test_named_by_id_by_group_and_by_default(self, walls: Walls) -> None:
        tenants = walls.tenants

        async def of_bill_to(who: Principal, bill_to: str | None) -> tuple[frozenset[str], ...]:
            payers = Payers(walls.rig.database, walls.rig.clock)
            payer_id = await payers.of_caller(who, bill_to)
            return () if payer_id is None else walls.confinements.for_payer(payer_id)

        org, free = await tenants.org("acme", "ann"), await tenants.org("open", "oli")
        bob, eve = await walls.principal("bob"), await walls.principal("eve")
        for each in (org, free):
            await tenants.members.add(each.id, "bob")
        group = await tenants.groups.add(org.id, "lab")
        await tenants.groups.add_member(org.id, "lab", "bob")
        await walls.confinements.confine("org", "acme", ["local"], OWNER)
        for bill_to in ("acme", "ACME", org.id, group.id):
            assert await of_bill_to(bob, bill_to) == (LOCAL,), bill_to
            assert await of_bill_to(eve, bill_to) == (), bill_to  # the ledger refuses her
        for other in (None, "bob", "BOB", bob.user_id, "open", free.id, "nobody", "", "a b"):
            assert await of_bill_to(bob, other) == (), other
        await tenants.orgs.set_default_payer(org.id, True)
        assert await of_bill_to(bob, None) == (LOCAL,)
        assert await of_bill_to(bob, "bob") == ()
        assert await of_bill_to(eve, None) == ()
