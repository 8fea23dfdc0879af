"""Who may use the /api surface: owners and the operator, on every route of it."""

import pytest
from litestar import Litestar

from app.api.admin.routes import admin_router
from tests.app.api.admin.conftest import Desk

ROUTES = sorted(
    (method, route.path.replace("{name:str}", "alice").replace("{key_id:str}", "key_0"))
    for route in Litestar([admin_router()], openapi_config=None, logging_config=None).routes
    for method in getattr(route, "methods", [])
    if method not in {"OPTIONS", "HEAD"}
)


def test_these_are_all_the_routes() -> None:
    assert ROUTES == [
        ("DELETE", "/api/keys/key_0"),
        ("GET", "/api/keys"),
        ("GET", "/api/models"),
        ("GET", "/api/usage"),
        ("GET", "/api/users"),
        ("POST", "/api/keys"),
        ("POST", "/api/users"),
        ("PUT", "/api/users/alice/tier"),
    ]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_owners_get_in(desk: Desk, method: str, path: str) -> None:
    member, owner = await desk.member("mallory"), await desk.member("root", role="owner")
    expected = {
        "": {401},
        "Basic Zm9vOmJhcg==": {401},
        "Bearer " + "x" * 43: {401},
        f"Bearer {member}": {403},
        f"Bearer {owner}": {200, 201, 400, 404, 415},
        f"Bearer {desk.appliance.admin_token}": {200, 201, 400, 404, 415},
    }
    for authorization, statuses in expected.items():
        response = await desk.http.request(method, path, headers={"authorization": authorization})
        assert response.status_code in statuses, authorization[:10]
        if response.status_code in {401, 403}:
            assert response.json()["error"]["message"]
            assert response.headers["inference-id"]
            assert member not in response.text


async def test_an_owners_key_stops_with_its_revocation(desk: Desk) -> None:
    owner = await desk.member("root", role="owner")
    headers = {"authorization": f"Bearer {owner}"}
    assert (await desk.http.get("/api/users", headers=headers)).status_code == 200
    assert (await desk.http.delete(f"/api/keys/{owner[3:13]}", headers=headers)).status_code == 200
    assert (await desk.http.get("/api/users", headers=headers)).status_code == 401
