"""Who may use which route of orgs and limits: a table, and a request per cell.

Each asker works through the rows in order, on an appliance of their own; what takes things away
comes after what needs them.
"""

from typing import Any, NamedTuple

import pytest
from litestar import Litestar

from app.api.admin.routes import admin_router
from tests.app.api.admin.conftest import Desk
from tests.app.api.admin.tenants_desk import settle_in

ASKERS = ("anonymous", "zoe", "bob", "ann", "olga", "root", "operator")
PUBLIC = (401, 200, 200, 200, 200, 200, 200)
OWNERS = (401, 403, 403, 403, 403, 200, 200)
MEMBERS = (401, 404, 200, 200, 404, 200, 200)
ADMINS = (401, 404, 403, 200, 404, 200, 200)


class Row(NamedTuple):
    """A request, and what each of the askers gets; 200 is any success."""

    method: str
    route: str
    expected: tuple[int, ...]
    body: Any = None
    query: dict[str, str] = {}  # noqa: RUF012 (never changed)


ORG = "/api/orgs/{org:str}"
SWITCH = {"kind": "model", "name": "acme/tiny"}
TABLE = [
    Row("GET", "/api/orgs", PUBLIC),
    Row("POST", "/api/orgs", OWNERS, {"name": "new", "tier": "team", "admin": "zoe"}),
    Row("PUT", f"{ORG}/tier", OWNERS, {"tier": "enterprise"}),
    Row("GET", ORG, MEMBERS),
    Row("PUT", f"{ORG}/default-payer", ADMINS, {"default_payer": True}),
    Row("GET", f"{ORG}/members", MEMBERS),
    Row("POST", f"{ORG}/members", ADMINS, {"user": "zoe"}),
    Row("PUT", f"{ORG}/members/{{user:str}}/role", ADMINS, {"role": "admin"}),
    Row("GET", f"{ORG}/groups", MEMBERS),
    Row("POST", f"{ORG}/groups", ADMINS, {"name": "new"}),
    Row("GET", f"{ORG}/groups/{{group:str}}/members", MEMBERS),
    Row("POST", f"{ORG}/groups/{{group:str}}/members", ADMINS, {"user": "ann"}),
    Row("DELETE", f"{ORG}/groups/{{group:str}}/members/{{user:str}}", ADMINS),
    Row("DELETE", f"{ORG}/groups/{{group:str}}", ADMINS),
    Row("GET", f"{ORG}/switches", MEMBERS),
    Row("PUT", f"{ORG}/switches", ADMINS, {**SWITCH, "reason": "why"}),
    Row("DELETE", f"{ORG}/switches", ADMINS, None, SWITCH),
    Row("PUT", f"{ORG}/provider-keys/{{provider:str}}", ADMINS, {"secret": "sk-of-the-org"}),
    Row("GET", f"{ORG}/provider-keys", ADMINS),
    Row("DELETE", f"{ORG}/provider-keys/{{provider:str}}", ADMINS),
    Row("GET", "/api/limits", PUBLIC),
    Row("PUT", "/api/limits", ADMINS, {"scope": "payer", "subject": "acme", "amount_usd": "5"}),
    Row("DELETE", "/api/limits", ADMINS, None, {"scope": "payer", "subject": "acme"}),
    Row("DELETE", f"{ORG}/members/{{user:str}}", (401, 404, 200, 200, 404, 200, 200)),
]


def test_the_table_has_every_route_of_orgs_and_limits() -> None:
    app = Litestar([admin_router()], openapi_config=None, logging_config=None)
    routes = {
        (method, route.path)
        for route in app.routes
        for method in getattr(route, "methods", [])
        if method not in {"OPTIONS", "HEAD"} and route.path.startswith(("/api/orgs", "/api/limits"))
    }
    assert {(row.method, row.route) for row in TABLE} == routes


@pytest.mark.parametrize("who", ASKERS)
async def test_who_gets_what(desk: Desk, who: str) -> None:
    tenants = await settle_in(desk)
    services = desk.appliance.services
    await services.groups.add_member(tenants.acme.id, tenants.group.id, "bob")
    await services.switches.off(tenants.acme.id, "model", "acme/tiny", "why", "operator")
    ann = await services.keyring.authenticate(tenants.keys["ann"])
    await services.limits.set("payer", "acme", 10**9, ann)
    places = {"{org:str}": "acme", "{user:str}": "bob", "{group:str}": tenants.group.id}
    places["{provider:str}"] = "mock"
    found, expected = {}, {}
    for row in TABLE:
        path = row.route
        for place, value in places.items():
            path = path.replace(place, value)
        response = await tenants.ask(who, row.method, path, row.body, **row.query)
        cell = f"{row.method} {row.route}"
        expected[cell] = row.expected[ASKERS.index(who)]
        found[cell] = 200 if response.is_success else response.status_code
        if not response.is_success:
            assert response.json()["error"]["message"]
            assert tenants.acme.id not in response.text
    assert found == expected
