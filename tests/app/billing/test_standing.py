"""Who pays, on what terms, within what: and that no stranger learns which orgs there are."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from app.config import parse
from app.errors import InvalidKey, NotFound, PermissionDenied
from app.ids import new_group_id, new_org_id
from app.ledger.entries import Limit, Standing
from app.ledger.standing import Standings
from tests.app.billing.accounts_world import OPERATOR, World, build

CENTS = 10_000_000


async def test_it_is_what_the_ledger_asks_for(world: World) -> None:
    as_asked: Standings = world.standings
    assert as_asked is world.standings


async def test_users_pay_for_themselves(world: World) -> None:
    key = await world.user("bob", "pro")
    found = await world.standing("bob")
    assert (found.payer_id, found.payer_name) == (key.user_id, "bob")
    assert found.terms is world.tiers.terms_of("pro")
    assert (found.group_id, found.limits) == ("", ())
    assert not found.providers_off
    assert not found.models_off
    for bill_to in ("bob", "BOB", key.user_id):
        assert await world.standing("bob", bill_to) == found


async def test_a_member_bills_the_org_by_name_or_id(world: World) -> None:
    await world.user("ann")
    await world.user("bob")
    org_id = await world.org("acme", "ann", "bob")
    for bill_to in ("acme", "ACME", org_id):
        found = await world.standing("bob", bill_to)
        assert (found.payer_id, found.payer_name, found.group_id) == (org_id, "acme", "")
        assert found.terms is world.tiers.terms_of("team", 2)
    assert (await world.standing("bob")).payer_name == "bob"


async def test_credit_is_pooled_over_the_seats_of_the_moment(world: World) -> None:
    for name in ("ann", "bob", "cat"):
        await world.user(name)
    org_id = await world.org("acme", "ann", "bob", "cat")
    assert (await world.standing("ann", "acme")).terms.monthly_credit_nano_usd == 3 * 200 * CENTS
    assert (await world.terms(org_id)).fee_nano_usd == 3 * 2000 * CENTS
    await world.members.remove(org_id, "cat")
    assert (await world.standing("ann", "acme")).terms.monthly_credit_nano_usd == 2 * 200 * CENTS
    assert (await world.terms(org_id)).fee_nano_usd == 2 * 2000 * CENTS


async def test_the_default_payer_joined_first_pays_where_nobody_is_named(world: World) -> None:
    for name in ("ann", "bob"):
        await world.user(name)
    first = await world.org("first", "ann", "bob")
    second = await world.org("second", "ann", "bob", pays=True)
    third = await world.org("third", "ann", "bob", pays=True)
    assert (await world.standing("bob")).payer_id == second
    await world.orgs.set_default_payer(first, True)
    assert (await world.standing("bob")).payer_id == first
    assert (await world.standing("bob", "bob")).payer_name == "bob"
    assert (await world.standing("bob", "third")).payer_id == third
    for org_id in (first, second, third):
        await world.members.remove(org_id, "bob")
    assert (await world.standing("bob")).payer_name == "bob"


async def test_a_group_is_billed_by_its_members_and_the_orgs_admins(world: World) -> None:
    for name in ("ann", "bob", "cat"):
        await world.user(name)
    org_id = await world.org("acme", "ann", "bob", "cat")
    group = await world.groups.add(org_id, "research")
    await world.groups.add_member(org_id, group.id, "bob")
    for name in ("ann", "bob"):
        found = await world.standing(name, group.id)
        assert (found.payer_id, found.group_id) == (org_id, group.id)
    with pytest.raises(PermissionDenied):
        await world.standing("cat", group.id)
    await world.groups.remove(org_id, group.id)
    with pytest.raises(PermissionDenied):
        await world.standing("ann", group.id)


async def test_a_stranger_hears_the_same_whatever_there_is(world: World) -> None:
    for name in ("ann", "mallory"):
        await world.user(name)
    org_id = await world.org("acme", "ann")
    group = await world.groups.add(org_id, "research")
    there_are = ["acme", org_id, group.id, "ann", world.key_of["ann"].user_id]
    there_are_not = ["nobody", new_org_id(), new_group_id(), "", " ", "a/b", "x" * 10_000, "\x00"]
    told = set()
    for bill_to in (*there_are, *there_are_not, "\ud800", "' OR 1=1 --", group.name):
        with pytest.raises(PermissionDenied) as refused:
            await world.standing("mallory", bill_to)
        assert (refused.value.status, refused.value.code) == (403, "not_a_member")
        told.add((refused.value.message, refused.value.param))
    assert len(told) == 1


async def test_a_revoked_or_foreign_key_is_no_callers(world: World) -> None:
    key = await world.user("bob")
    other = await world.user("ann")
    for user_id, key_id in ((key.user_id, other.id), (key.user_id, "key_0"), ("user_0", key.id)):
        world.key_of["x"] = msgspec.structs.replace(key, user_id=user_id, id=key_id)
        with pytest.raises(InvalidKey, match="not known"):
            await world.standing("x")
    await world.keys.revoke(key.id)
    with pytest.raises(InvalidKey, match="revoked"):
        await world.standing("bob")


async def test_every_limit_that_applies_and_no_other(world: World) -> None:
    for name in ("ann", "bob"):
        await world.user(name)
    org_id = await world.org("acme", "ann", "bob")
    group = await world.groups.add(org_id, "research")
    other = await world.groups.add(org_id, "other")
    bob, ann = world.key_of["bob"], world.key_of["ann"]
    subjects = [
        ("key", bob.prefix, bob.id),
        ("user", "bob", bob.user_id),
        ("member", "acme/bob", f"{org_id}/{bob.user_id}"),
        ("group", group.id, group.id),
        ("payer", "acme", org_id),
        ("payer", "bob", bob.user_id),
        ("key", ann.prefix, ann.id),
        ("user", "ann", ann.user_id),
        ("member", "acme/ann", f"{org_id}/{ann.user_id}"),
        ("group", other.id, other.id),
    ]
    set_at = {}
    for cents, (scope, subject, _) in enumerate(subjects):
        made = await world.limits.set(scope, subject, cents * CENTS, OPERATOR)  # type: ignore[arg-type]
        set_at[cents] = made.set_at_ms

    def expected(*numbers: int) -> tuple[Limit, ...]:
        return tuple(Limit(subjects[n][0], subjects[n][2], n * CENTS, set_at[n]) for n in numbers)

    async def limits(bill_to: str | None) -> tuple[Limit, ...]:
        return (await world.standing("bob", bill_to)).limits

    assert await limits(None) == expected(0, 1, 5)
    assert await limits("acme") == expected(0, 1, 2, 4)
    await world.groups.add_member(org_id, group.id, "bob")
    assert await limits(group.id) == expected(0, 1, 2, 3, 4)


async def test_switches_count_only_where_the_org_pays(world: World) -> None:
    for name in ("ann", "bob"):
        await world.user(name)
    org_id = await world.org("acme", "ann", "bob")
    by = world.key_of["ann"].user_id
    await world.switches.off(org_id, "provider", "mock", "no contract yet", by)
    await world.switches.off(org_id, "model", "acme/tiny", "too small", by)
    found = await world.standing("bob", "acme")
    assert dict(found.providers_off) == {"mock": "no contract yet"}
    assert dict(found.models_off) == {"acme/tiny": "too small"}
    alone = await world.standing("bob")
    assert not alone.providers_off
    assert not alone.models_off
    await world.switches.on(org_id, "provider", "mock")
    assert not (await world.standing("bob", "acme")).providers_off


async def test_terms_of_payers_and_of_nobody(world: World) -> None:
    key = await world.user("bob", "pro")
    assert await world.terms(key.user_id) is world.tiers.terms_of("pro")
    with pytest.raises(NotFound):
        await world.terms("user_0")


async def test_a_tier_that_is_gone_stops_calls_and_says_so(world: World, tmp_path: Any) -> None:
    config = parse({"tiers": {"club": {"org": True}}}, source="test")
    older = await build(tmp_path / "other.db", config)
    await older.user("ann")
    org_id = await older.org("acme", "ann", tier="club", pays=True)
    older.standings = world.standings
    for bill_to in (None, "acme"):
        with pytest.raises(PermissionDenied, match="club") as refused:
            await older.standing("ann", bill_to)
        assert refused.value.code == "tier_not_configured"
    with pytest.raises(PermissionDenied):
        await older.terms(org_id)
    assert (await older.standing("ann", "ann")).payer_name == "ann"
    await older.database.close()


@pytest.mark.parametrize("bill_to", [None, "bob", "acme", "group", "id", "stranger"])
async def test_a_caller_costs_few_queries_and_each_is_a_search(
    world: World, bill_to: str | None
) -> None:
    for name in ("ann", "bob"):
        await world.user(name)
    org_id = await world.org("acme", "ann", "bob", pays=True)
    group = await world.groups.add(org_id, "research")
    await world.groups.add_member(org_id, group.id, "bob")
    where = {"group": group.id, "id": org_id, "stranger": "nobody"}.get(bill_to or "", bill_to)
    key, plans = world.key_of["bob"], []

    def unit(tx: Any) -> Standing | None:
        def ask(sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
            plans.append([row[3] for row in tx.execute(f"EXPLAIN QUERY PLAN {sql}", params)])
            found: list[tuple[Any, ...]] = tx.execute(sql, params)
            return found

        try:
            return world.standings.of_caller(ask, key.user_id, key.id, where)
        except PermissionDenied:
            return None

    found = await world.database.write(unit)
    assert (found is None) == (bill_to == "stranger")
    assert len(plans) <= 4
    assert [step for plan in plans for step in plan if step.startswith("SCAN")] == []
