"""Who may ask which payer's month, whose events, and who may give: each role on each route."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.billing.till import ADMIN, Till, open_till

CREDIT = {"payer": "mia", "kind": "purchased", "amount_usd": "1", "reference": "r"}
ADJUSTMENT = {"payer": "mia", "amount_usd": "1", "reason": "why"}
ASKED: dict[str, tuple[str, str, Any]] = {
    "own": ("GET", "/api/billing", None),
    "payer": ("GET", "/api/billing?payer=mia", None),
    "org": ("GET", "/api/billing?org=acme", None),
    "no such org": ("GET", "/api/billing?org=nowhere", None),
    "no such payer": ("GET", "/api/billing?payer=nobody", None),
    "all events": ("GET", "/api/events", None),
    "an org's events": ("GET", "/api/events?org=acme", None),
    "credit": ("GET", "/api/credit?payer=mia", None),
    "give": ("POST", "/api/credit", CREDIT),
    "adjustments": ("GET", "/api/adjustments", None),
    "adjust": ("POST", "/api/adjustments", ADJUSTMENT),
    "key": ("GET", "/api/v1/key", None),
    "credits": ("GET", "/api/v1/credits", None),
}
# What each role is answered, in the order of ASKED.
OWNER = [200, 200, 200, 404, 404, 200, 200, 200, 201, 200, 201, 200, 200]
ADMINISTRATOR = [200, 403, 200, 403, 403, 403, 200, 403, 403, 403, 403, 200, 200]
MEMBER = [200, 403, 200, 403, 403, 403, 403, 403, 403, 403, 403, 200, 200]
STRANGER = [200, 403, 403, 403, 403, 403, 403, 403, 403, 403, 403, 200, 200]
EXPECTED = {
    "owner": OWNER,
    "operator": [*OWNER[:11], 403, 403],  # the command line has no key to tell about
    "admin": ADMINISTRATOR,
    "member": MEMBER,
    "stranger": STRANGER,
    "revoked": [401] * len(ASKED),
    "nobody": [401] * len(ASKED),
}


@pytest.fixture
async def till(tmp_path: Path) -> AsyncIterator[Till]:
    async with open_till(tmp_path) as opened:
        yield opened


async def people(till: Till) -> dict[str, str]:
    keys = {
        "owner": await till.user("olga", role="owner"),
        "operator": ADMIN,
        "admin": await till.user("adam"),
        "member": await till.user("mia"),
        "stranger": await till.user("sven"),
        "revoked": await till.user("rosa", role="owner"),
        "nobody": "",
    }
    await till.services.keys.revoke(keys["revoked"][3:13])
    await till.org("acme", "team", adam="admin", mia="member")
    await till.org("other", "team", sven="admin")
    return keys


@pytest.mark.parametrize("role", list(EXPECTED))
async def test_each_role_on_each_route(till: Till, role: str) -> None:
    key = (await people(till))[role]
    for (name, (method, path, body)), status in zip(ASKED.items(), EXPECTED[role], strict=True):
        response = await till.ask(method, path, key, json=body)
        assert response.status_code == status, (name, response.text)
        if status >= 400:
            message = response.json()["error"]["message"]
            assert message.endswith(".")
            assert not key or key not in response.text


async def test_the_answer_does_not_tell_whether_an_org_of_others_exists(till: Till) -> None:
    key = (await people(till))["stranger"]
    for path in ("/api/billing", "/api/events"):
        there = (await till.ask("GET", path, key, org="acme")).json()["error"]
        gone = (await till.ask("GET", path, key, org="nope")).json()["error"]
        assert there["message"].replace("acme", "nope") == gone["message"]


async def test_each_sees_their_own(till: Till) -> None:
    keys = await people(till)
    for role, name in (("owner", "olga"), ("member", "mia"), ("stranger", "sven")):
        assert (await till.got("/api/billing", keys[role]))["payer"]["name"] == name
    assert (await till.got("/api/billing"))["payer"]["name"] == "olga"  # the first owner
    assert (await till.got("/api/billing", payer="ACME"))["payer"]["kind"] == "org"


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        ("/api/billing?payer=mia&org=acme", 400, "payer"),
        ("/api/billing?org=mia", 400, "org"),
        ("/api/events?org=mia", 400, "org"),
        ("/api/billing?who=mia", 400, "who"),
        ("/api/billing?payer=mia&payer=sven", 400, "payer"),
        ("/api/billing?payer=", 400, "payer"),
        ("/api/events?limit=0", 400, "limit"),
        ("/api/events?before=x", 400, "before"),
        ("/api/events?before=0", 400, "before"),
        ("/api/credit", 400, None),
        ("/api/credit?payer=mia&before=99999999999999999999", 400, "before"),
        ("/api/adjustments?payer=nobody", 404, "payer"),
    ],
)
async def test_a_wrong_question_is_refused_by_name(
    till: Till, path: str, status: int, param: str | None
) -> None:
    await people(till)
    response = await till.ask("GET", path)
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == param


async def test_without_an_owner_the_operator_names_a_payer(till: Till) -> None:
    await till.user("mia")
    response = await till.ask("GET", "/api/billing")
    assert response.status_code == 404
    assert "payer" in response.json()["error"]["message"]
    assert (await till.got("/api/billing", payer="mia"))["tier"] == "free"
