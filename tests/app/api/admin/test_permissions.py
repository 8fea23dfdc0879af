"""Who may use the /api surface: a new route without a line in one of these tables fails here.

What each caller sees of the routes that every key may ask is tested beside each of them.
"""

import re

import pytest
from litestar import Litestar, Router
from litestar.handlers import HTTPRouteHandler

from app.api.admin.routes import CALLERS, OWNERS
from tests.app.api.admin.conftest import Desk

OWNERS_ROUTES = """
DELETE /api/keys/{key_id}
GET /api/adjustments
GET /api/clock
GET /api/credit
GET /api/keys
GET /api/local/models
GET /api/models
GET /api/providers
GET /api/users
POST /api/adjustments
POST /api/clock/confirm
POST /api/credit
POST /api/invoices/close
POST /api/keys
POST /api/local/models/load
POST /api/local/models/unload
POST /api/orgs
POST /api/reload
POST /api/restart
POST /api/secrets/forget
POST /api/secrets/rotate
POST /api/users
PUT /api/orgs/{org}/tier
PUT /api/users/{name}/tier
"""
CALLERS_ROUTES = """
DELETE /api/confinements
DELETE /api/limits
DELETE /api/orgs/{org}/groups/{group}
DELETE /api/orgs/{org}/groups/{group}/members/{user}
DELETE /api/orgs/{org}/members/{user}
DELETE /api/orgs/{org}/provider-keys/{provider}
DELETE /api/orgs/{org}/switches
DELETE /api/preferred
DELETE /api/provider-keys/{provider}
GET /api/billing
GET /api/confinements
GET /api/events
GET /api/invoices
GET /api/invoices/preview
GET /api/invoices/{number}
GET /api/limits
GET /api/orgs
GET /api/orgs/{org}
GET /api/orgs/{org}/groups
GET /api/orgs/{org}/groups/{group}/members
GET /api/orgs/{org}/members
GET /api/orgs/{org}/provider-keys
GET /api/orgs/{org}/switches
GET /api/preferred
GET /api/provider-keys
GET /api/usage
GET /api/usage/rows
POST /api/billing/costs
POST /api/orgs/{org}/groups
POST /api/orgs/{org}/groups/{group}/members
POST /api/orgs/{org}/members
PUT /api/confinements
PUT /api/limits
PUT /api/orgs/{org}/default-payer
PUT /api/orgs/{org}/members/{user}/role
PUT /api/orgs/{org}/provider-keys/{provider}
PUT /api/orgs/{org}/switches
PUT /api/preferred
PUT /api/provider-keys/{provider}
"""


def lines(handlers: list[HTTPRouteHandler]) -> list[str]:
    app = Litestar(
        [Router("/api", route_handlers=handlers)], openapi_config=None, logging_config=None
    )
    return sorted(
        f"{method} {re.sub(r':str}', '}', route.path)}"
        for route in app.routes
        for method in getattr(route, "methods", [])
        if method not in {"OPTIONS", "HEAD"}
    )


def test_these_are_all_the_routes() -> None:
    assert lines(OWNERS) == OWNERS_ROUTES.split("\n")[1:-1]
    assert lines(CALLERS) == CALLERS_ROUTES.split("\n")[1:-1]


def asked(line: str) -> tuple[str, str]:
    method, path = line.split()
    return method, re.sub(r"{\w+}", "nothing", path)


async def answers(desk: Desk, line: str) -> dict[str, int]:
    """The status that each kind of caller gets."""
    member, owner = await desk.member("mallory"), await desk.member("root", role="owner")
    method, path = asked(line)
    found = {}
    for who, authorization in {
        "nobody": "",
        "basic": "Basic Zm9vOmJhcg==",
        "stranger": "Bearer " + "x" * 43,
        "member": f"Bearer {member}",
        "owner": f"Bearer {owner}",
        "operator": f"Bearer {desk.appliance.admin_token}",
    }.items():
        headers = {"authorization": authorization}
        response = await desk.http.request(method, path, headers=headers)
        found[who] = response.status_code
        if response.status_code in {401, 403}:
            assert response.json()["error"]["message"]
            assert response.headers["inference-id"]
            assert member not in response.text
    return found


@pytest.mark.parametrize("line", OWNERS_ROUTES.split("\n")[1:-1])
async def test_only_owners_get_in(desk: Desk, line: str) -> None:
    found = await answers(desk, line)
    assert {found[who] for who in ("nobody", "basic", "stranger")} == {401}
    assert found["member"] == 403
    for who in ("owner", "operator"):
        assert found[who] not in {401, 403}
        assert found[who] < 500


@pytest.mark.parametrize("line", CALLERS_ROUTES.split("\n")[1:-1])
async def test_every_good_key_may_ask(desk: Desk, line: str) -> None:
    found = await answers(desk, line)
    assert {found[who] for who in ("nobody", "basic", "stranger")} == {401}
    for who in ("member", "owner", "operator"):
        assert found[who] != 401
        assert found[who] < 500


async def test_an_owners_key_stops_with_its_revocation(desk: Desk) -> None:
    owner = await desk.member("root", role="owner")
    headers = {"authorization": f"Bearer {owner}"}
    assert (await desk.http.get("/api/users", headers=headers)).status_code == 200
    assert (await desk.http.delete(f"/api/keys/{owner[3:13]}", headers=headers)).status_code == 200
    assert (await desk.http.get("/api/users", headers=headers)).status_code == 401
