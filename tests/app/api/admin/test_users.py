"""/api/users: strict in what it takes, exact in what it gives."""

import msgspec
import pytest

from app.api.admin.wire import UserList
from app.identity.users import User
from tests.app.api.admin.conftest import Desk

JSON = {"content-type": "application/json"}


async def test_a_user_is_added_listed_and_moved(desk: Desk) -> None:
    added = await desk.http.post("/api/users", json={"name": "alice", "tier": "free"})
    assert added.status_code == 201
    user = msgspec.json.decode(added.content, type=User)
    assert (user.name, user.tier, user.role) == ("alice", "free", "member")
    moved = await desk.http.put("/api/users/alice/tier", json={"tier": "pro"})
    assert moved.status_code == 200
    listed = msgspec.json.decode((await desk.http.get("/api/users")).content, type=UserList)
    assert listed == UserList([msgspec.structs.replace(user, tier="pro")])


async def test_a_new_tier_takes_effect_at_once(desk: Desk) -> None:
    await desk.member("alice")
    user = await desk.appliance.services.users.by_name("alice")
    ledger = desk.appliance.services.ledger
    assert (await ledger.balance(user.id)).credit_nano_usd == 100_000_000
    await desk.http.put("/api/users/alice/tier", json={"tier": "pro"})
    balance = await ledger.balance(user.id)
    assert (balance.terms.tier, balance.credit_nano_usd) == ("pro", 2_000_000_000)


@pytest.mark.parametrize(
    ("body", "words", "param"),
    [
        ({"name": "bob", "tier": "gold"}, "tiers: free, pro", "tier"),
        ({"name": "b b", "tier": "free"}, "1 to 64 characters", "name"),
        ({"name": "bob"}, "tier", "tier"),
        ({"name": "bob", "tier": "free", "admin": True}, "admin", "admin"),
        ({"name": 7, "tier": "free"}, "str", "name"),
        ({"name": "bob", "tier": "free", "role": "root"}, "role", "role"),
        ({"name": "", "tier": "free"}, "length", "name"),
        ([], "object", None),
        (None, "object", None),
    ],
)
async def test_a_wrong_body_is_refused_by_name(
    desk: Desk, body: object, words: str, param: str | None
) -> None:
    response = await desk.http.post("/api/users", content=msgspec.json.encode(body), headers=JSON)
    assert response.status_code == 400
    error = response.json()["error"]
    assert words in error["message"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert await desk.appliance.services.users.list() == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"name":"\xff","tier":"free"}', 400),
        (b'{"name":"a","name":"b","tier":"free"}', 400),
        (b"[" * 100_000, 413),
        (b'{"name":' + b"[" * 5000, 400),
        (b'{"name":"bob","tier":"free","x":' + b"9" * 5000 + b"}", 400),
        (b'{"name":"' + b"a" * 100_000 + b'","tier":"free"}', 413),
    ],
)
async def test_garbage_is_a_client_error(desk: Desk, body: bytes, status: int) -> None:
    response = await desk.http.post("/api/users", content=body, headers=JSON)
    assert response.status_code == status
    assert response.json()["error"]["message"]


async def test_json_must_be_declared(desk: Desk) -> None:
    body = b'{"name":"bob","tier":"free"}'
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = await desk.http.post(
            "/api/users", content=body, headers={"content-type": content_type}
        )
        assert response.status_code == 415


async def test_taken_and_unknown_names(desk: Desk) -> None:
    await desk.member("alice")
    taken = await desk.http.post("/api/users", json={"name": "Alice", "tier": "pro"})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "conflict")
    unknown = await desk.http.put("/api/users/bob%00'--/tier", json={"tier": "pro"})
    assert unknown.status_code == 404


async def test_pages(desk: Desk) -> None:
    for number in range(5):
        await desk.member(f"user{number}")
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        response = await desk.http.get("/api/users", params={"after": after, "limit": "2"})
        page = msgspec.json.decode(response.content, type=UserList)
        seen += [user.name for user in page.data]
        after = page.next_after
    assert seen == [f"user{number}" for number in range(5)]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "form=1", "limit=1&limit=2"])
async def test_a_wrong_query_is_refused_by_name(desk: Desk, query: str) -> None:
    response = await desk.http.get(f"/api/users?{query}")
    assert response.status_code == 400
    name = query.partition("=")[0]
    assert name in response.json()["error"]["message"]
    assert response.json()["error"]["param"] == name
