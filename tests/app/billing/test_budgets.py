"""Spending limits: who may set, change, remove and see which."""

from typing import Any

import pytest

from app.billing.limit_subjects import LimitScope
from app.errors import InvalidRequest, NotFound, PermissionDenied
from app.identity.principal import Principal
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from tests.app.billing.accounts_world import OPERATOR, World

USD = 10**9


@pytest.fixture
async def acme(world: World) -> World:
    """Ann is admin of acme, bob a member; olga is admin of other; zoe belongs nowhere."""
    for name in ("ann", "bob", "olga", "zoe"):
        await world.user(name)
    org_id = await world.org("acme", "ann", "bob")
    await world.org("other", "olga")
    await world.groups.add(org_id, "research")
    return world


async def group_id(world: World) -> str:
    org = await world.orgs.named("acme")
    return (await world.groups.named(org.id, "research")).id


async def subject_of(world: World, scope: LimitScope) -> str:
    if scope == "group":
        return await group_id(world)
    return {
        "key": f"tp_{world.key_of['bob'].prefix}",
        "user": "bob",
        "member": "acme/bob",
        "payer": "acme",
    }[scope]


async def test_a_limit_is_set_changed_listed_and_removed(acme: World) -> None:
    made = await acme.limits.set("payer", "ACME", 5 * USD, OPERATOR)
    assert (made.subject, made.label, made.set_by) == ("acme", "acme", "operator")
    assert (made.posted_nano_usd, made.held_nano_usd) == (None, None)
    changed = await acme.limits.set("payer", "acme", 0, OPERATOR)
    assert changed.amount_nano_usd == 0
    assert changed.set_at_ms > made.set_at_ms
    assert await acme.limits.list(OPERATOR) == [changed]
    assert await acme.limits.remove("payer", "acme", OPERATOR) == changed
    assert await acme.limits.list(OPERATOR) == []
    with pytest.raises(NotFound, match="no such spending limit"):
        await acme.limits.remove("payer", "acme", OPERATOR)


@pytest.mark.parametrize("amount", [-1, AMOUNT_NANO_USD_MAX + 1])
async def test_an_amount_out_of_range_is_refused(acme: World, amount: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await acme.limits.set("payer", "acme", amount, OPERATOR)
    assert refused.value.param == "amount_nano_usd"


ALLOWED: dict[LimitScope, dict[str, Any]] = {
    # What each of them gets who tries to limit bob's key, bob, bob in acme, acme's group, acme.
    "key": {"bob": None, "ann": NotFound, "olga": NotFound, "zoe": NotFound},
    "user": {
        "bob": PermissionDenied,
        "ann": PermissionDenied,
        "olga": PermissionDenied,
        "zoe": PermissionDenied,
    },
    "member": {"bob": PermissionDenied, "ann": None, "olga": NotFound, "zoe": NotFound},
    "group": {"bob": PermissionDenied, "ann": None, "olga": NotFound, "zoe": NotFound},
    "payer": {"bob": PermissionDenied, "ann": None, "olga": NotFound, "zoe": NotFound},
}


@pytest.mark.parametrize("scope", ALLOWED)
async def test_who_may_set_and_remove(acme: World, scope: LimitScope) -> None:
    subject = await subject_of(acme, scope)
    await acme.limits.set(scope, subject, USD, OPERATOR)
    await acme.limits.remove(scope, subject, OPERATOR)
    for name, refusal in ALLOWED[scope].items():
        by = acme.principal(name)
        if refusal is None:
            made = await acme.limits.set(scope, subject, USD, by)
            assert (made.set_by, made.subject) == (name, subject)
            await acme.limits.remove(scope, subject, by)
            continue
        with pytest.raises(refusal):
            await acme.limits.set(scope, subject, USD, by)
        await acme.limits.set(scope, subject, USD, OPERATOR)
        with pytest.raises(refusal):
            await acme.limits.remove(scope, subject, by)
        await acme.limits.remove(scope, subject, OPERATOR)


@pytest.mark.parametrize("scope", ["key", "member", "group", "payer"])
@pytest.mark.parametrize("owner_is", ["operator", "owner"])
async def test_what_an_owner_set_only_owners_change(
    acme: World, scope: LimitScope, owner_is: str
) -> None:
    owner = OPERATOR
    if owner_is == "owner":
        key = await acme.user("root", role="owner")
        owner = Principal(user_id=key.user_id, user_name="root", key_id=key.id, owner=True)
    by = acme.principal("bob" if scope == "key" else "ann")
    subject = await subject_of(acme, scope)
    await acme.limits.set(scope, subject, USD, owner)
    for amount in (2 * USD, USD // 2):
        with pytest.raises(PermissionDenied, match="owner"):
            await acme.limits.set(scope, subject, amount, by)
    with pytest.raises(PermissionDenied, match="owner"):
        await acme.limits.remove(scope, subject, by)
    assert [each.amount_nano_usd for each in await acme.limits.list(OPERATOR)] == [USD]
    await acme.limits.remove(scope, subject, OPERATOR)
    await acme.limits.set(scope, subject, USD, by)
    assert (await acme.limits.set(scope, subject, 3 * USD, owner)).amount_nano_usd == 3 * USD


async def test_strangers_cannot_tell_what_there_is(acme: World) -> None:
    mallory, told = acme.principal("zoe"), set()
    pairs: list[tuple[LimitScope, str, str]] = [
        ("key", acme.key_of["bob"].prefix, "0123456789"),
        ("member", "acme/bob", "ghost/bob"),
        ("group", await group_id(acme), "group_0"),
        ("payer", "acme", "ghost"),
        ("payer", "bob", "ghost"),
        ("user", "bob", "ghost"),
    ]
    for scope, real, ghost in pairs:
        for subject in (real, ghost):
            with pytest.raises((NotFound, PermissionDenied)) as refused:
                await acme.limits.set(scope, subject, USD, mallory)
            shown = subject.partition("/")[0]
            told.add((scope, refused.value.status, refused.value.message.replace(shown, "X")))
    assert len(told) == 5


async def test_an_admin_needs_a_tier_with_spending_limits_and_an_owner_does_not(
    acme: World,
) -> None:
    bare = World(**{**vars(acme), "limits": without_limits(acme)})
    with pytest.raises(PermissionDenied, match=r"not part of the tier team.*: none") as refused:
        await bare.limits.set("payer", "acme", USD, acme.principal("ann"))
    assert refused.value.code == "feature_not_in_tier"
    await bare.limits.set("payer", "acme", USD, OPERATOR)
    await acme.limits.remove("payer", "acme", OPERATOR)
    await acme.limits.set("payer", "acme", USD, acme.principal("ann"))
    await bare.limits.remove("payer", "acme", acme.principal("ann"))
    await bare.limits.set("key", acme.key_of["bob"].id, USD, acme.principal("bob"))


def without_limits(world: World) -> Any:
    from app.billing.budgets import SpendingLimits
    from app.billing.tiers import Tiers
    from app.config import parse

    plain: dict[str, Any] = {
        "tiers": {name: {"features": []} for name in ("pro", "team", "enterprise")}
    }
    return SpendingLimits(world.database, world.clock, Tiers(parse(plain, source="test")))


async def test_who_sees_which(acme: World) -> None:
    scopes: list[LimitScope] = ["group", "key", "member", "payer", "user"]
    for scope in scopes:
        await acme.limits.set(scope, await subject_of(acme, scope), USD, OPERATOR)
    await acme.limits.set("payer", "bob", USD, OPERATOR)

    async def seen(by: Principal) -> list[str]:
        return [f"{each.scope}:{each.label}" for each in await acme.limits.list(by)]

    key = f"key:bob: laptop (tp_{acme.key_of['bob'].prefix})"
    group, member = "group:research of acme", "member:bob in acme"
    payers = ["payer:acme", "payer:bob"]
    assert await seen(OPERATOR) == [group, key, member, *payers, "user:bob"]
    assert await seen(acme.principal("bob")) == [key, member, *payers, "user:bob"]
    assert await seen(acme.principal("ann")) == [group, member, "payer:acme"]
    assert await seen(acme.principal("olga")) == []
    assert await seen(acme.principal("zoe")) == []
    org = await acme.orgs.named("acme")
    await acme.groups.add_member(org.id, "research", "bob")
    assert await seen(acme.principal("bob")) == [group, key, member, *payers, "user:bob"]
    await acme.groups.remove(org.id, "research")
    assert await seen(OPERATOR) == [key, member, *payers, "user:bob"]
    assert len(await acme.database.read("SELECT * FROM spending_limits")) == 5


async def test_pages(acme: World) -> None:
    for name in ("ann", "bob", "olga"):
        await acme.limits.set("user", name, USD, OPERATOR)
        await acme.limits.set("payer", name, USD, OPERATOR)
    found, after = [], ("", "")
    while page := await acme.limits.list(OPERATOR, after=after, limit=2):
        assert len(page) <= 2
        found += page
        after = (page[-1].scope, page[-1].subject_id)
    assert found == await acme.limits.list(OPERATOR)
    assert len(found) == 6


async def test_a_former_members_limit_waits_for_their_return(acme: World) -> None:
    org = await acme.orgs.named("acme")
    ann = acme.principal("ann")
    await acme.limits.set("member", "acme/bob", USD, ann)
    await acme.members.remove(org.id, "bob")
    assert (await acme.limits.set("member", "acme/bob", 2 * USD, ann)).label == "bob in acme"
    await acme.members.add(org.id, "bob")
    assert [each.amount_nano_usd for each in (await acme.standing("bob", "acme")).limits] == [
        2 * USD
    ]
    await acme.limits.remove("member", "acme/bob", ann)
    with pytest.raises(NotFound, match="no member named 'zoe'"):
        await acme.limits.set("member", "acme/zoe", USD, ann)
    with pytest.raises(InvalidRequest, match="ORG/USER"):
        await acme.limits.set("member", "acme", USD, ann)


async def test_removal_forgets_what_was_counted(acme: World) -> None:
    made = await acme.limits.set("payer", "acme", 5 * USD, OPERATOR)
    await acme.database.write(
        lambda tx: tx.execute(
            "INSERT INTO limit_months (scope, subject_id, period, set_at_ms, amount_nano_usd,"
            " past, posted_nano_usd, held_nano_usd) VALUES ('payer', ?, ?, ?, ?, 0, 7, 8)",
            (made.subject_id, "2026-09", made.set_at_ms, made.amount_nano_usd),
        )
    )
    [seen] = await acme.limits.list(OPERATOR)
    assert (seen.posted_nano_usd, seen.held_nano_usd) == (7, 8)
    await acme.limits.remove("payer", "acme", OPERATOR)
    assert await acme.database.read("SELECT * FROM limit_months") == []
