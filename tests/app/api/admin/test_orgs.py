"""/api/orgs and what lies under it: strict in what it takes, and tenants apart."""

import pytest

from tests.app.api.admin.conftest import Desk
from tests.app.api.admin.tenants_desk import Tenants, settle_in

USD = 10**9


@pytest.fixture
async def tenants(desk: Desk) -> Tenants:
    return await settle_in(desk)


async def test_an_org_from_its_making_to_its_first_bill_to(desk: Desk) -> None:
    for name in ("ann", "bob"):
        await desk.member(name)
    body = {"name": "acme", "tier": "team", "admin": "ann", "default_payer": True}
    made = await desk.http.post("/api/orgs", json=body)
    assert made.status_code == 201
    org = made.json()
    assert (org["tier"], org["default_payer"], org["seats"]) == ("team", True, 1)
    added = await desk.http.post("/api/orgs/acme/members", json={"user": "bob"})
    assert (added.status_code, added.json()["role"]) == (201, "member")
    assert (await desk.http.get("/api/orgs/ACME")).json()["seats"] == 2
    assert (await desk.http.get(f"/api/orgs/{org['id']}")).json()["name"] == "acme"


async def test_an_admin_runs_the_org(tenants: Tenants) -> None:
    base = "/api/orgs/acme"
    await tenants.answer("ann", "POST", f"{base}/members", {"user": "zoe"})
    await tenants.answer("ann", "PUT", f"{base}/members/zoe/role", {"role": "admin"})
    members = (await tenants.answer("zoe", "GET", f"{base}/members"))["data"]
    assert {each["user_name"]: each["role"] for each in members} == {
        "ann": "admin",
        "bob": "member",
        "zoe": "admin",
    }
    assert (await tenants.answer("zoe", "DELETE", f"{base}/members/ann"))["user_name"] == "ann"
    group = await tenants.answer("zoe", "POST", f"{base}/groups", {"name": "sales"})
    path = f"{base}/groups/sales/members"
    await tenants.answer("zoe", "POST", path, {"user": "bob"})
    listed = (await tenants.answer("bob", "GET", path))["data"]
    assert [(each["group_id"], each["user_name"]) for each in listed] == [(group["id"], "bob")]
    await tenants.answer("zoe", "DELETE", f"{path}/bob")
    names = [
        each["name"] for each in (await tenants.answer("bob", "GET", f"{base}/groups"))["data"]
    ]
    assert names == ["research", "sales"]
    await tenants.answer("zoe", "DELETE", f"{base}/groups/{group['id']}")


async def test_members_leave_by_themselves_but_the_last_admin_stays(tenants: Tenants) -> None:
    path = "/api/orgs/acme/members"
    assert (await tenants.answer("bob", "DELETE", f"{path}/BOB"))["user_name"] == "bob"
    assert (await tenants.ask("bob", "GET", path)).status_code == 404
    status, code, message = await tenants.refused("ann", "DELETE", f"{path}/ann")
    assert (status, code) == (409, "last_admin")
    assert "Make another member an admin first" in message
    assert (await tenants.refused("root", "DELETE", f"{path}/ann"))[0] == 409


async def test_switches_take_what_exists_and_give_the_reason(tenants: Tenants) -> None:
    path = "/api/orgs/acme/switches"
    for kind, name in (("provider", "mock"), ("model", "acme/tiny")):
        body = {"kind": kind, "name": name, "reason": "no contract"}
        made = await tenants.answer("ann", "PUT", path, body)
        assert (made["set_by"], made["reason"]) == ("ann", "no contract")
    listed = (await tenants.answer("bob", "GET", path))["data"]
    assert [(each["kind"], each["name"]) for each in listed] == [
        ("model", "acme/tiny"),
        ("provider", "mock"),
    ]
    for kind, name in (("provider", "acme/tiny"), ("model", "acme/large")):
        body = {"kind": kind, "name": name, "reason": "typo"}
        status, _, message = await tenants.refused("ann", "PUT", path, body)
        assert (status, "has no" in message) == (404, True)
    assert (await tenants.answer("ann", "DELETE", path, kind="provider", name="mock"))["name"]
    assert (
        await tenants.ask("ann", "DELETE", path, kind="provider", name="mock")
    ).status_code == 404


async def test_what_a_tier_lacks_is_refused_by_name(desk: Desk) -> None:
    tenants = await settle_in(desk)
    services = desk.appliance.services
    for feature in ("resource_groups", "provider_switches", "spending_limits"):
        services.tiers._tiers["team"].features.remove(feature)
    for method, path, body in (
        ("POST", "/api/orgs/acme/groups", {"name": "x"}),
        ("POST", "/api/orgs/acme/groups/research/members", {"user": "bob"}),
        ("PUT", "/api/orgs/acme/switches", {"kind": "provider", "name": "mock", "reason": "x"}),
        ("PUT", "/api/limits", {"scope": "payer", "subject": "acme", "amount_usd": "1"}),
    ):
        status, code, message = await tenants.refused("ann", method, path, body)
        assert (status, code) == (403, "feature_not_in_tier")
        assert "tier team" in message
        assert "enterprise" in message
    # What is there can be taken away on any tier.
    await tenants.answer("ann", "DELETE", "/api/orgs/acme/groups/research")


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/api/orgs", {"name": "x", "tier": "team"}, "admin"),
        ("POST", "/api/orgs", {"name": "x", "tier": "free", "admin": "zoe"}, "tier"),
        ("POST", "/api/orgs", {"name": "a b", "tier": "team", "admin": "zoe"}, "name"),
        ("POST", "/api/orgs", {"name": "x", "tier": "team", "admin": "zoe", "y": 1}, "y"),
        ("PUT", "/api/orgs/acme/tier", {"tier": "pro"}, "tier"),
        ("PUT", "/api/orgs/acme/default-payer", {"default_payer": "yes"}, "default_payer"),
        ("POST", "/api/orgs/acme/members", {"user": "zoe", "role": "owner"}, "role"),
        ("PUT", "/api/orgs/acme/members/bob/role", {"role": "root"}, "role"),
        ("POST", "/api/orgs/acme/groups", {"name": "a/b"}, "name"),
        ("PUT", "/api/orgs/acme/switches", {"kind": "x", "name": "m", "reason": "r"}, "kind"),
        ("PUT", "/api/limits", {"scope": "org", "subject": "acme", "amount_usd": "1"}, "scope"),
        (
            "PUT",
            "/api/limits",
            {"scope": "payer", "subject": "acme", "amount_usd": 1},
            "amount_usd",
        ),
        (
            "PUT",
            "/api/limits",
            {"scope": "payer", "subject": "acme", "amount_usd": "-1"},
            "amount_usd",
        ),
        ("PUT", "/api/limits", {"scope": "member", "subject": "x", "amount_usd": "1"}, "subject"),
    ],
)
async def test_a_wrong_body_is_refused_by_name(
    tenants: Tenants, method: str, path: str, body: object, param: str
) -> None:
    response = await tenants.ask("operator", method, path, body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


async def test_taken_names_and_unknown_ones(tenants: Tenants) -> None:
    for name in ("ACME", "Ann"):
        body = {"name": name, "tier": "team", "admin": "zoe"}
        assert (await tenants.refused("root", "POST", "/api/orgs", body))[0] == 409
    taken = {"name": "Acme", "tier": "free"}
    assert (await tenants.refused("root", "POST", "/api/users", taken))[0] == 409
    assert (await tenants.refused("root", "GET", "/api/orgs/ghost"))[0] == 404
    again = await tenants.refused("ann", "POST", "/api/orgs/acme/members", {"user": "bob"})
    assert again[0] == 409


async def test_everybody_lists_their_own_orgs_in_pages(tenants: Tenants) -> None:
    async def names(who: str, **query: str) -> list[str]:
        return [
            org["name"] for org in (await tenants.answer(who, "GET", "/api/orgs", **query))["data"]
        ]

    assert await names("operator") == ["acme", "other"]
    assert await names("root") == ["acme", "other"]
    assert await names("bob") == ["acme"]
    assert await names("olga") == ["other"]
    assert await names("zoe") == []
    first = await tenants.answer("root", "GET", "/api/orgs", limit="1")
    assert await names("root", after=first["next_after"]) == ["other"]


async def test_of_another_tenant_and_of_nothing_one_hears_the_same(tenants: Tenants) -> None:
    """Olga runs an org of her own; none of it opens acme to her, nor tells her that it is there."""
    for method, tail, body in (
        ("GET", "", None),
        ("GET", "/members", None),
        ("POST", "/members", {"user": "olga", "role": "admin"}),
        ("PUT", "/members/bob/role", {"role": "admin"}),
        ("DELETE", "/members/bob", None),
        ("DELETE", "/members/olga", None),
        ("PUT", "/default-payer", {"default_payer": True}),
        ("GET", "/groups", None),
        ("POST", "/groups", {"name": "mine"}),
        ("GET", f"/groups/{tenants.group.id}/members", None),
        ("POST", f"/groups/{tenants.group.id}/members", {"user": "olga"}),
        ("DELETE", f"/groups/{tenants.group.id}", None),
        ("GET", "/switches", None),
        ("PUT", "/switches", {"kind": "provider", "name": "mock", "reason": "mine"}),
    ):
        told = set()
        for org in ("acme", "ghost", tenants.acme.id):
            answer = await tenants.refused("olga", method, f"/api/orgs/{org}{tail}", body)
            told.add((answer[0], answer[1], answer[2].replace(org, "X")))
        assert {each[:2] for each in told} == {(404, "not_found")}
        assert len(told) == 1, f"{method} {tail}"
    # Her own org's routes with acme's ids reach nothing either.
    path = f"/api/orgs/other/groups/{tenants.group.id}"
    for method, tail, body in (
        ("GET", "/members", None),
        ("POST", "/members", {"user": "olga"}),
        ("DELETE", "", None),
    ):
        assert (await tenants.refused("olga", method, f"{path}{tail}", body))[0] == 404
    services = tenants.desk.appliance.services
    assert await services.orgs.named("acme") == tenants.acme
    assert await services.groups.list(tenants.acme.id) == [tenants.group]
    assert await services.groups.members(tenants.group) == []


async def test_a_change_of_seats_or_tier_is_booked_at_once(tenants: Tenants) -> None:
    await tenants.answer("ann", "POST", "/api/orgs/acme/members", {"user": "zoe"})
    assert await tenants.credit(tenants.acme.id) == 3 * 2 * USD
    await tenants.answer("ann", "DELETE", "/api/orgs/acme/members/zoe")
    assert await tenants.credit(tenants.acme.id) == 2 * 2 * USD
    await tenants.answer("root", "PUT", "/api/orgs/acme/tier", {"tier": "enterprise"})
    assert await tenants.credit(tenants.acme.id) == 2 * 2 * USD
    made = await tenants.answer(
        "root", "POST", "/api/orgs", {"name": "new", "tier": "team", "admin": "zoe"}
    )
    assert await tenants.credit(made["id"]) == 2 * USD


async def test_a_users_new_tier_is_booked_at_once(tenants: Tenants) -> None:
    user = await tenants.answer("root", "PUT", "/api/users/zoe/tier", {"tier": "pro"})
    assert await tenants.credit(user["id"]) == 2 * USD
    await tenants.answer("root", "PUT", "/api/users/zoe/tier", {"tier": "free"})
    await tenants.answer("root", "PUT", "/api/users/zoe/tier", {"tier": "pro"})
    assert await tenants.credit(user["id"]) == 2 * USD
    status, _, message = await tenants.refused(
        "root", "PUT", "/api/users/zoe/tier", {"tier": "team"}
    )
    assert (status, "tiers: free, pro" in message) == (400, True)
