"""The ledger and the standing of callers together: what a hold meets at the moment it is placed."""

import asyncio

import pytest

from app.errors import InvalidKey, OutOfCredits, PermissionDenied
from app.ids import new_call_id
from app.ledger.entries import Hold, HoldRequest, HoldState, Outcome, UsageRow
from tests.app.billing.accounts_world import OPERATOR, World

USD = 10**9
CALLS = 1000


async def hold(
    world: World, name: str, bill_to: str | None = None, amount: int = USD // 100
) -> Hold:
    """A call's hold, all or nothing."""
    key, now_ms = world.key_of[name], world.clock.now_ms()
    request = HoldRequest(
        call_id=new_call_id(),
        user_id=key.user_id,
        key_id=key.id,
        bill_to=bill_to,
        offers=(
            ("mock", "acme/tiny"),
            ("spare", "acme/tiny"),
        ),
        amount_nano_usd=amount,
        floor_nano_usd=amount,
        admitted_at_ms=now_ms,
        expires_at_ms=now_ms + 600_000,
    )
    return await world.ledger.place_hold(request)


async def settle(world: World, name: str, held: Hold, cost: int) -> HoldState:
    """End it at a cost."""
    key = world.key_of[name]
    row = UsageRow(
        call_id=held.call_id,
        at_ms=world.clock.now_ms(),
        user_id=key.user_id,
        key_id=key.id,
        payer_id=held.payer_id,
        group_id=held.group_id,
        model="acme/tiny",
        provider="mock",
        outcome=Outcome.COMPLETED,
        streamed=False,
        attempts=1,
    )
    return (await world.ledger.settle_hold(held.call_id, cost, row)).state


@pytest.fixture
async def acme(world: World) -> World:
    """Ann runs acme, bob belongs to it."""
    for name in ("ann", "bob"):
        await world.user(name)
    await world.org("acme", "ann", "bob")
    return world


async def acme_id(world: World) -> str:
    return (await world.orgs.named("acme")).id


async def test_a_seat_taken_during_many_calls_stops_new_ones_and_not_those_in_flight(
    acme: World,
) -> None:
    org_id = await acme_id(acme)
    await acme.limits.set("payer", "acme", 10**6 * USD, OPERATOR)

    async def call(number: int) -> Hold | None:
        if number == CALLS // 2:
            await acme.members.remove(org_id, "bob")
        try:
            return await hold(acme, "bob", "acme", amount=1000)
        except PermissionDenied as error:
            assert error.code == "not_a_member"
            return None

    placed = await asyncio.gather(*(call(number) for number in range(CALLS)))
    held = [each for each in placed if each is not None]
    assert 0 < len(held) < CALLS
    assert {each.payer_id for each in held} == {org_id}
    with pytest.raises(PermissionDenied):
        await hold(acme, "bob", "acme")
    ends = await asyncio.gather(*(settle(acme, "bob", each, 700) for each in held))
    assert set(ends) == {HoldState.SETTLED}
    balance = await acme.ledger.balance(org_id)
    spent = sum(grant.spent_nano_usd for grant in balance.grants)
    assert (spent, balance.held_nano_usd) == (700 * len(held), 0)
    own = await acme.ledger.balance(acme.key_of["bob"].user_id)
    assert sum(grant.spent_nano_usd for grant in own.grants) == 0


async def test_an_orgs_credit_counts_only_where_it_pays(acme: World) -> None:
    with pytest.raises(OutOfCredits):
        await hold(acme, "bob", amount=USD)
    assert (await hold(acme, "bob", "acme", amount=USD)).payer_id == await acme_id(acme)
    await acme.orgs.set_default_payer(await acme_id(acme), True)
    assert (await hold(acme, "bob", amount=USD)).payer_id == await acme_id(acme)
    assert (await hold(acme, "bob", "bob")).payer_id == acme.key_of["bob"].user_id


@pytest.mark.parametrize("scope", ["key", "user", "member", "group", "payer"])
async def test_a_limit_holds_from_the_next_call_on_and_its_end_too(acme: World, scope: str) -> None:
    group = await acme.groups.add(await acme_id(acme), "research")
    await acme.groups.add_member(group.org_id, group.id, "bob")
    subject = {
        "key": acme.key_of["bob"].id,
        "user": "bob",
        "member": "acme/bob",
        "group": group.id,
        "payer": "acme",
    }[scope]
    await hold(acme, "bob", group.id, amount=USD // 2)
    await acme.limits.set(scope, subject, USD, OPERATOR)  # type: ignore[arg-type]
    with pytest.raises(OutOfCredits):
        await hold(acme, "bob", group.id, amount=USD)
    second = await hold(acme, "bob", group.id, amount=USD // 2)
    with pytest.raises(OutOfCredits):
        await hold(acme, "bob", group.id, amount=1)
    await settle(acme, "bob", second, USD // 4)
    [seen] = await acme.limits.list(OPERATOR)
    assert (seen.posted_nano_usd, seen.held_nano_usd) == (USD // 4, USD // 2)
    await hold(acme, "bob", group.id, amount=USD // 4)
    await acme.limits.set(scope, subject, 2 * USD, OPERATOR)  # type: ignore[arg-type]
    await hold(acme, "bob", group.id, amount=USD // 2)
    await acme.limits.remove(scope, subject, OPERATOR)  # type: ignore[arg-type]
    await hold(acme, "bob", group.id, amount=USD)
    await acme.limits.set(scope, subject, 0, OPERATOR)  # type: ignore[arg-type]
    with pytest.raises(OutOfCredits):
        await hold(acme, "bob", group.id, amount=1)


async def test_what_is_switched_off_is_refused_with_the_reason(acme: World) -> None:
    org_id = await acme_id(acme)
    by = acme.key_of["ann"].user_id
    await acme.switches.off(org_id, "provider", "mock", "no contract yet", by)
    assert (await hold(acme, "bob", "acme")).offers == (("spare", "acme/tiny"),)
    await acme.switches.off(org_id, "provider", "spare", "too far away", by)
    with pytest.raises(PermissionDenied, match="no contract yet"):
        await hold(acme, "bob", "acme")
    assert (await hold(acme, "bob", "bob")).offers == (
        ("mock", "acme/tiny"),
        ("spare", "acme/tiny"),
    )
    await acme.switches.on(org_id, "provider", "mock")
    await acme.switches.off(org_id, "model", "acme/tiny", "use the large one", by)
    with pytest.raises(PermissionDenied, match="use the large one"):
        await hold(acme, "bob", "acme")


async def test_a_key_stops_in_the_ledger_too_once_it_is_revoked(acme: World) -> None:
    await hold(acme, "bob")
    await acme.keys.revoke(acme.key_of["bob"].id)
    with pytest.raises(InvalidKey):
        await hold(acme, "bob")
