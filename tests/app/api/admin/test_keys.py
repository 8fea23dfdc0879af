"""/api/keys: a key is in one answer only."""

import msgspec
import pytest

from app.api.admin.wire import CreatedKey, KeyList
from app.identity.key_format import parse_key
from tests.app.api.admin.conftest import Desk


async def test_a_key_is_shown_once_and_works(desk: Desk) -> None:
    await desk.appliance.services.users.add("alice", "free")
    response = await desk.http.post("/api/keys", json={"user": "alice", "name": "laptop"})
    assert response.status_code == 201
    created = msgspec.json.decode(response.content, type=CreatedKey)
    parts = parse_key(created.key)
    assert parts is not None
    assert parts.prefix == created.prefix
    principal = await desk.appliance.services.keyring.authenticate(created.key)
    assert (principal.user_name, principal.key_id) == ("alice", created.id)

    answers = [
        await desk.http.get("/api/keys"),
        await desk.http.get("/api/users"),
        await desk.http.get("/api/usage?by=key"),
        await desk.http.delete(f"/api/keys/{created.id}"),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert parts.secret not in answer.text
        assert "secret" not in answer.text
    listed = msgspec.json.decode(answers[0].content, type=KeyList).data
    assert [(key.id, key.name, key.user_name) for key in listed] == [
        (created.id, "laptop", "alice")
    ]


@pytest.mark.parametrize("by", ["id", "prefix"])
async def test_revoking_is_final_and_repeatable(desk: Desk, by: str) -> None:
    key = await desk.member("alice")
    ring = desk.appliance.services.keyring
    info = (await desk.appliance.services.keys.list())[0]
    await ring.authenticate(key)
    path = f"/api/keys/{getattr(info, by)}"
    first = await desk.http.delete(path)
    assert first.status_code == 200
    assert first.json()["revoked_at_ms"] is not None
    assert ring.cached(key) is None
    assert (await desk.http.delete(path)).json() == first.json()


async def test_refusals(desk: Desk) -> None:
    unknown = await desk.http.post("/api/keys", json={"user": "bob"})
    assert unknown.status_code == 404
    assert "'bob'" in unknown.json()["error"]["message"]
    assert (await desk.http.delete("/api/keys/nothing")).status_code == 404
    await desk.appliance.services.users.add("bob", "free")
    blank = await desk.http.post("/api/keys", json={"user": "bob", "name": "\u202e"})
    assert (blank.status_code, blank.json()["error"]["param"]) == (400, "name")
