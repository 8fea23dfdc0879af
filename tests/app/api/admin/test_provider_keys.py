"""/api/provider-keys and /api/orgs/{org}/provider-keys: who may do what, and that no answer holds a
secret."""

from pathlib import Path
from typing import Any

import pytest

from app.identity.master_keys import FILE_NAME
from tests.app.api.admin.conftest import Desk
from tests.app.api.admin.tenants_desk import Tenants, settle_in

SECRET = "sk-canary-0123456789-abcdefgh"
MINE, ACMES = "/api/provider-keys", "/api/orgs/acme/provider-keys"
ASKERS = ("anonymous", "zoe", "bob", "ann", "olga", "root", "operator")


@pytest.fixture
async def tenants(desk: Desk) -> Tenants:
    return await settle_in(desk)


def opened(tenants: Tenants, owner_id: str) -> str:
    own = tenants.desk.appliance.services.provider_keys.own
    return own.open(own.of(owner_id)["mock"])


async def user_id(tenants: Tenants, name: str) -> str:
    return (await tenants.desk.appliance.services.users.by_name(name)).id


async def test_a_user_sets_sees_and_removes_a_key_of_their_own(tenants: Tenants) -> None:
    body = {"secret": SECRET, "paid_fallback": True}
    made = await tenants.answer("zoe", "PUT", f"{MINE}/mock", body)
    zoe = await user_id(tenants, "zoe")
    assert {key: made[key] for key in ("owner_id", "provider", "hint", "paid_fallback")} == {
        "owner_id": zoe,
        "provider": "mock",
        "hint": "efgh",
        "paid_fallback": True,
    }
    assert made["set_by"] == zoe
    assert (await tenants.answer("zoe", "GET", MINE))["data"] == [made]
    assert (await tenants.answer("bob", "GET", MINE))["data"] == []
    assert opened(tenants, zoe) == SECRET

    again = await tenants.answer("zoe", "PUT", f"{MINE}/mock", {"secret": "short"})
    assert (again["hint"], again["paid_fallback"]) == (None, False)
    assert await tenants.answer("zoe", "DELETE", f"{MINE}/mock") == again
    assert (await tenants.refused("zoe", "DELETE", f"{MINE}/mock"))[0] == 404
    assert (await tenants.answer("zoe", "GET", MINE))["data"] == []


async def test_an_orgs_key_is_its_own(tenants: Tenants) -> None:
    await tenants.answer("ann", "PUT", f"{ACMES}/mock", {"secret": SECRET})
    await tenants.answer("ann", "PUT", f"{MINE}/mock", {"secret": "sk-of-ann"})
    assert opened(tenants, tenants.acme.id) == SECRET
    assert opened(tenants, await user_id(tenants, "ann")) == "sk-of-ann"
    (listed,) = (await tenants.answer("ann", "GET", ACMES))["data"]
    assert listed["owner_id"] == tenants.acme.id
    await tenants.answer("ann", "DELETE", f"{ACMES}/mock")
    assert (await tenants.answer("ann", "GET", ACMES))["data"] == []
    assert opened(tenants, await user_id(tenants, "ann")) == "sk-of-ann"


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "expected"),
    [
        ("PUT", f"{MINE}/mock", {"secret": "s"}, {}, (401, 200, 200, 200, 200, 200, 400)),
        ("GET", MINE, None, {}, (401, 200, 200, 200, 200, 200, 400)),
        (
            "PUT",
            f"{MINE}/mock",
            {"secret": "s"},
            {"user": "bob"},
            (401, 403, 200, 403, 403, 200, 200),
        ),
        ("GET", MINE, None, {"user": "Bob"}, (401, 403, 200, 403, 403, 200, 200)),
        ("DELETE", f"{MINE}/mock", None, {"user": "bob"}, (401, 403, 200, 403, 403, 200, 200)),
        ("GET", MINE, None, {"user": "nobody"}, (401, 403, 403, 403, 403, 404, 404)),
        ("PUT", f"{ACMES}/mock", {"secret": "s"}, {}, (401, 404, 403, 200, 404, 200, 200)),
        ("GET", ACMES, None, {}, (401, 404, 403, 200, 404, 200, 200)),
        ("DELETE", f"{ACMES}/mock", None, {}, (401, 404, 403, 200, 404, 200, 200)),
        ("POST", "/api/secrets/rotate", None, {}, (401, 403, 403, 403, 403, 200, 200)),
        ("POST", "/api/secrets/forget", None, {}, (401, 403, 403, 403, 403, 200, 200)),
    ],
)
async def test_who_may_do_what(
    tenants: Tenants,
    method: str,
    path: str,
    body: Any,
    query: dict[str, str],
    expected: tuple[int, ...],
) -> None:
    keys = tenants.desk.appliance.services.provider_keys
    found = []
    for asker in ASKERS:
        for owner_id in (tenants.acme.id, await user_id(tenants, "bob")):
            await keys.put(owner_id, "mock", SECRET, paid_fallback=False, set_by="operator")
        response = await tenants.ask(asker, method, path, body, **query)
        found.append(200 if response.is_success else response.status_code)
        assert SECRET not in response.text
    assert tuple(found) == expected


async def test_no_answer_holds_a_secret(tenants: Tenants) -> None:
    texts = []
    for body in (
        {"secret": SECRET},
        {"secret": SECRET, "paid_fallback": "yes"},
        {"secret": SECRET, "unknown": SECRET},
        {"secret": f"{SECRET} {SECRET}"},
        {"secret": f"{SECRET}\r\nx-evil: 1"},
        {"secret": SECRET * 200},
        {"secret": [SECRET]},
        {"secret": ""},
        {},
    ):
        texts.append((await tenants.ask("zoe", "PUT", f"{MINE}/mock", body)).text)
        texts.append((await tenants.ask("ann", "PUT", f"{ACMES}/mock", body)).text)
    for who, path in (("zoe", MINE), ("ann", ACMES), ("operator", f"{MINE}?user=zoe")):
        texts.append((await tenants.ask(who, "GET", path)).text)
        texts.append((await tenants.ask(who, "POST", "/api/secrets/rotate")).text)
    assert "efgh" in "".join(texts)
    for text in texts:
        assert SECRET not in text
        assert "canary" not in text


async def test_what_is_no_key_is_refused(tenants: Tenants) -> None:
    for secret in ("", "a b", "a\n", "a\r\nb", "\u00e4", "x" * 4097):
        status, _, _ = await tenants.refused("zoe", "PUT", f"{MINE}/mock", {"secret": secret})
        assert status == 400
    assert (await tenants.answer("zoe", "GET", MINE))["data"] == []
    twice = f'{{"secret": "{SECRET}", "secret": "b"}}'
    response = await tenants.desk.http.put(
        f"{MINE}/mock",
        content=twice,
        params={"user": "zoe"},
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 400
    assert SECRET not in response.text


@pytest.mark.parametrize("provider", ["local", "nobody", "MOCK", "..", "x" * 300])
async def test_only_configured_providers_take_keys(tenants: Tenants, provider: str) -> None:
    for who, path in (("zoe", MINE), ("ann", ACMES)):
        response = await tenants.ask(who, "PUT", f"{path}/{provider}", {"secret": SECRET})
        assert response.status_code in {404, 405}
        assert SECRET not in response.text


async def test_rotation_through_the_surface(tenants: Tenants) -> None:
    await tenants.answer("zoe", "PUT", f"{MINE}/mock", {"secret": SECRET})
    data_dir = tenants.desk.appliance.services.config.data_dir()
    before = await tenants.answer("operator", "POST", "/api/secrets/rotate")
    after = await tenants.answer("root", "POST", "/api/secrets/rotate")
    assert (before["rewrapped"], after["rewrapped"]) == (1, 1)
    assert before["kid"] != after["kid"]
    assert opened(tenants, await user_id(tenants, "zoe")) == SECRET
    _lose(data_dir)
    assert (await tenants.answer("operator", "POST", "/api/secrets/forget"))["removed"] == 1


def _lose(data_dir: Path) -> None:
    (data_dir / FILE_NAME).unlink()


async def test_what_is_wrong_with_the_master_key_is_told(tenants: Tenants) -> None:
    data_dir = tenants.desk.appliance.services.config.data_dir()
    (data_dir / FILE_NAME).write_text("c2hvcnQ=")
    status, code, message = await tenants.refused("zoe", "PUT", f"{MINE}/mock", {"secret": SECRET})
    assert (status, code) == (503, "master_key_unavailable")
    assert "found 5 bytes" in message
