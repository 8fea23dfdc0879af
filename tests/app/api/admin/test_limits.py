"""/api/limits: set, listed in pages, removed; whose is whose is in tests/app/billing."""

import pytest

from tests.app.api.admin.conftest import Desk
from tests.app.api.admin.tenants_desk import Tenants, settle_in

USD = 10**9


@pytest.fixture
async def tenants(desk: Desk) -> Tenants:
    return await settle_in(desk)


async def test_a_limit_of_each_kind(tenants: Tenants) -> None:
    key = tenants.keys["bob"][:13]
    for who, scope, subject, amount in (
        ("bob", "key", key, "0.000000001"),
        ("root", "user", "bob", "10"),
        ("ann", "member", "acme/bob", "2.50"),
        ("ann", "group", tenants.group.id, "0"),
        ("ann", "payer", "acme", "999999999.999999999"),
        ("root", "payer", "zoe", "1"),
    ):
        body = {"scope": scope, "subject": subject, "amount_usd": amount}
        made = await tenants.answer(who, "PUT", "/api/limits", body)
        assert (made["scope"], made["subject"], made["set_by"]) == (scope, subject, who)
    listed = (await tenants.answer("operator", "GET", "/api/limits"))["data"]
    assert [(each["scope"], each["amount_nano_usd"]) for each in listed] == [
        ("group", 0),
        ("key", 1),
        ("member", 2 * USD + USD // 2),
        ("payer", 10**18 - 1),
        ("payer", USD),
        ("user", 10 * USD),
    ]
    removed = await tenants.answer("bob", "DELETE", "/api/limits", scope="key", subject=key)
    assert removed["amount_nano_usd"] == 1


async def test_pages(tenants: Tenants) -> None:
    for name in ("ann", "bob", "zoe"):
        body = {"scope": "user", "subject": name, "amount_usd": "1"}
        await tenants.answer("root", "PUT", "/api/limits", body)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = await tenants.answer("root", "GET", "/api/limits", after=after, limit="2")
        seen += [each["subject"] for each in page["data"]]
        after = page["next_after"]
    assert seen == ["ann", "bob", "zoe"]


@pytest.mark.parametrize(
    "amount", ["", "1,5", "1e3", "-1", "+1", "0.0000000001", " 1", "1\n", "\u0661"]
)
async def test_an_amount_is_exact_dollars(tenants: Tenants, amount: str) -> None:
    body = {"scope": "payer", "subject": "acme", "amount_usd": amount}
    response = await tenants.ask("root", "PUT", "/api/limits", body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "amount_usd")


async def test_a_wrong_query_is_refused_by_name(tenants: Tenants) -> None:
    for query, param in (
        ({"scope": "org", "subject": "acme"}, "scope"),
        ({"scope": "payer"}, "subject"),
        ({"scope": "payer", "subject": "acme", "x": "1"}, "x"),
    ):
        response = await tenants.ask("root", "DELETE", "/api/limits", **query)
        assert response.status_code == 400
        assert param in response.json()["error"]["message"]
