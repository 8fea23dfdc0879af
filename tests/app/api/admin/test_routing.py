"""Confinements, preferred orders and the state of providers, over a real appliance."""

from typing import Any

import httpx
import pytest

from tests.app.api.admin.conftest import Desk


def as_(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def ask(
    desk: Desk, method: str, path: str, body: Any = None, *, key: str = "", **query: str
) -> httpx.Response:
    headers = as_(key) if key else {}
    return await desk.http.request(method, path, json=body, params=query, headers=headers)


async def told(desk: Desk, method: str, path: str, body: Any = None, **more: str) -> Any:
    response = await ask(desk, method, path, body, **more)
    assert response.status_code == 200, response.text
    return response.json()


async def refused(desk: Desk, method: str, path: str, body: Any = None, **more: str) -> int:
    return (await ask(desk, method, path, body, **more)).status_code


class TestConfinements:
    async def test_an_owner_confines_and_lifts(self, desk: Desk) -> None:
        key = await desk.member("bob")
        asked = {"kind": "user", "subject": "bob", "labels": ["local"]}
        found = await told(desk, "PUT", "/api/confinements", asked)
        assert (found["labels"], found["set_by"], found["by_owner"]) == (
            ["local"],
            "operator",
            True,
        )
        listed = await told(desk, "GET", "/api/confinements")
        assert listed["data"] == [found]
        services = desk.appliance.services
        bob = await services.keyring.authenticate(key)
        in_force = services.confinements.labels_for(bob.user_id, bob.key_id)
        assert in_force == (frozenset({"local"}),)
        assert await told(desk, "GET", "/api/confinements", key=key) == listed
        body = {"kind": "user", "subject": "bob"}
        assert await refused(desk, "DELETE", "/api/confinements", key=key, **body) == 403
        assert await told(desk, "DELETE", "/api/confinements", **body) == found
        assert services.confinements.labels_for(bob.user_id, bob.key_id) == ()
        assert await refused(desk, "DELETE", "/api/confinements", **body) == 404

    async def test_a_user_tightens_an_own_key(self, desk: Desk) -> None:
        bob, eve = await desk.member("bob"), await desk.member("eve")
        asked = {"kind": "key", "subject": bob.rpartition("_")[0], "labels": ["local"]}
        assert await refused(desk, "PUT", "/api/confinements", asked, key=eve) == 404
        found = await told(desk, "PUT", "/api/confinements", asked, key=bob)
        assert found["subject"] == asked["subject"]
        assert (await told(desk, "GET", "/api/confinements", key=eve))["data"] == []

    async def test_an_admin_confines_the_org(self, desk: Desk) -> None:
        ann, bob = await desk.member("ann"), await desk.member("bob")
        services = desk.appliance.services
        org = await services.orgs.add("acme", "team", "ann")
        await services.members.add(org.id, "bob")
        asked = {"kind": "org", "subject": "acme", "labels": ["local"]}
        assert await refused(desk, "PUT", "/api/confinements", asked, key=bob) == 403
        await told(desk, "PUT", "/api/confinements", asked, key=ann)
        assert services.confinements.for_payer(org.id) == (frozenset({"local"}),)

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"kind": "user", "subject": "bob", "labels": ["lcoal"]}, 404),
            ({"kind": "user", "subject": "bob", "labels": []}, 400),
            ({"kind": "user", "subject": "nobody", "labels": ["local"]}, 404),
            ({"kind": "model", "subject": "bob", "labels": ["local"]}, 400),
            ({"kind": "user", "subject": "bob"}, 400),
            ({"kind": "user", "subject": "bob", "labels": ["local"], "more": 1}, 400),
        ],
    )
    async def test_what_is_refused(self, desk: Desk, body: Any, status: int) -> None:
        await desk.member("bob")
        assert await refused(desk, "PUT", "/api/confinements", body) == status


class TestPreferredOrders:
    async def test_a_user_sets_an_order_of_their_own(self, desk: Desk) -> None:
        bob, eve = await desk.member("bob"), await desk.member("eve")
        empty = await told(desk, "GET", "/api/preferred", key=bob)
        assert (empty["user"], empty["providers"]) == ("bob", [])
        order = {"providers": ["local", "mock"]}
        found = await told(desk, "PUT", "/api/preferred", order, key=bob)
        assert found["providers"] == ["local", "mock"]
        preferred = desk.appliance.services.preferred
        assert preferred.of(found["user_id"]) == ("local", "mock")
        assert await told(desk, "GET", "/api/preferred", user="bob") == found
        for method, body in (("GET", None), ("DELETE", None)):
            status = await refused(desk, method, "/api/preferred", body, key=eve, user="bob")
            assert status == 403
        assert (
            await refused(desk, "PUT", "/api/preferred", {**order, "user": "bob"}, key=eve) == 403
        )
        assert (await told(desk, "DELETE", "/api/preferred", key=bob))["providers"] == []
        assert preferred.of(found["user_id"]) == ()
        assert await refused(desk, "DELETE", "/api/preferred", key=bob) == 404

    async def test_the_command_line_names_the_user(self, desk: Desk) -> None:
        await desk.member("bob")
        order = {"providers": ["mock"]}
        assert await refused(desk, "PUT", "/api/preferred", order) == 400
        assert await refused(desk, "GET", "/api/preferred") == 400
        assert await refused(desk, "PUT", "/api/preferred", {**order, "user": "nobody"}) == 404
        found = await told(desk, "PUT", "/api/preferred", {**order, "user": "bob"})
        assert found["user"] == "bob"

    @pytest.mark.parametrize(
        ("providers", "status"),
        [(["mokc"], 404), ([], 400), (["mock", "mock"], 400), (["mock"] * 65, 400), ("mock", 400)],
    )
    async def test_what_is_refused(self, desk: Desk, providers: Any, status: int) -> None:
        key = await desk.member("bob")
        asked = {"providers": providers}
        assert await refused(desk, "PUT", "/api/preferred", asked, key=key) == status


class TestProviders:
    async def test_how_they_do(self, desk: Desk) -> None:
        health = desk.appliance.services.health
        for _ in range(5):
            health.failed(("mock", "acme/gift"))
        health.measured(("mock", "acme/tiny"), 120.0, 44.0)
        (found,) = (await told(desk, "GET", "/api/providers"))["data"]
        assert (found["provider"], found["plugin"]) == ("mock", "openai_compatible")
        tiny, gift = found["offers"]
        assert (tiny["model"], tiny["circuit"], tiny["opens_in_s"]) == ("acme/tiny", "closed", 0)
        assert (tiny["first_token_ms"], tiny["tokens_per_second"]) == (120.0, 44.0)
        assert (gift["model"], gift["circuit"]) == ("acme/gift", "open")
        assert 0 < gift["opens_in_s"] <= 5
        assert (await told(desk, "GET", "/api/providers", provider="mock"))["data"] == [found]
        assert await refused(desk, "GET", "/api/providers", provider="nobody") == 404

    async def test_only_owners_see_them(self, desk: Desk) -> None:
        bob = await desk.member("bob")
        assert await refused(desk, "GET", "/api/providers", key=bob) == 403
        boss = await desk.member("boss", role="owner")
        assert await refused(desk, "GET", "/api/providers", key=boss) == 200
