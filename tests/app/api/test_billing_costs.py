"""``POST /api/billing/costs`` on a real appliance: whose costs, in which form, what is refused."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from app.boot import Appliance, open_appliance
from app.config import parse
from app.ids import new_call_id
from app.ledger.entries import HoldRequest, Outcome, UsageRow

URL = "/api/billing/costs"
CONFIG: dict[str, Any] = {
    "providers": [
        {
            "id": "mock",
            "plugin": "openai_compatible",
            "base_url": "http://127.0.0.1:9/v1",
            "models": [{"id": "acme/tiny", "price": {"input": "0.20", "output": "0.60"}}],
        }
    ],
}


@dataclass
class Desk:
    """The appliance, and HTTP to it."""

    appliance: Appliance
    http: httpx.AsyncClient

    async def member(self, name: str) -> str:
        """A user with a key: the key."""
        services = self.appliance.services
        await services.users.add(name, "pro", "member")
        return (await services.keys.create(name, "laptop"))[1]

    async def call(self, key: str, cost: int | None, *, bill_to: str | None = None) -> str:
        """A call of this key; its id. Without a cost it is still running."""
        services = self.appliance.services
        who = await services.keyring.authenticate(key)
        call_id, now_ms = new_call_id(), services.clock.now_ms()
        held = await services.ledger.place_hold(
            HoldRequest(
                call_id=call_id,
                user_id=who.user_id,
                key_id=who.key_id,
                bill_to=bill_to,
                offers=(("mock", "acme/tiny"),),
                amount_nano_usd=1000,
                floor_nano_usd=1000,
                admitted_at_ms=now_ms,
                expires_at_ms=now_ms + 60_000,
            )
        )
        row = UsageRow(
            call_id=call_id,
            at_ms=now_ms,
            user_id=who.user_id,
            key_id=who.key_id,
            payer_id=held.payer_id,
            model="acme/tiny",
            provider="mock",
            outcome=Outcome.COMPLETED,
            streamed=False,
            attempts=1,
        )
        if cost is not None:
            await services.ledger.settle_hold(call_id, cost, row)
        return call_id

    async def ask(self, key: str, body: Any, **headers: str) -> httpx.Response:
        """What the key is told."""
        sent = {"authorization": f"Bearer {key}", **headers}
        if isinstance(body, bytes):
            sent = {"content-type": "application/json", **sent}
            return await self.http.post(URL, content=body, headers=sent)
        return await self.http.post(URL, json=body, headers=sent)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    config = parse(CONFIG, source="test", data_dir=str(tmp_path / "data"))
    async with (
        open_appliance(config, serving=False) as appliance,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(cast(Any, appliance.asgi)), base_url="http://127.0.0.1"
        ) as http,
    ):
        yield Desk(appliance, http)


async def test_the_protocol_s_answer(desk: Desk) -> None:
    key = await desk.member("ann")
    calls = {await desk.call(key, cost): cost for cost in (12, 0, None, 7)}
    asked = [*reversed(calls), "unknown", next(iter(calls))]
    answer = await desk.ask(key, {"requestIds": asked, "more": 1})
    assert answer.status_code == 200
    assert answer.json() == {
        "requests": [
            {"requestId": call_id, "costNanoUsd": cost}
            for call_id, cost in reversed(calls.items())
            if cost is not None
        ]
    }
    again = await desk.ask(key, {"requestIds": asked})
    assert again.json() == answer.json()
    assert (await desk.ask(key, {"requestIds": []})).json() == {"requests": []}


async def test_a_cost_is_told_by_every_key_of_its_user_and_by_no_other(desk: Desk) -> None:
    ann, bob = await desk.member("ann"), await desk.member("bob")
    services = desk.appliance.services
    org = await services.orgs.add("acme", "team", "ann")
    await services.members.add(org.id, "bob")
    second = (await services.keys.create("ann", "server"))[1]
    of_ann = [await desk.call(ann, 5), await desk.call(ann, 6, bill_to="acme")]
    of_bob = [await desk.call(bob, 7), await desk.call(bob, 8, bill_to="acme")]
    for key, costs in ((ann, [5, 6]), (second, [5, 6]), (bob, [7, 8])):
        answer = (await desk.ask(key, {"requestIds": of_ann + of_bob})).json()
        assert [cost["costNanoUsd"] for cost in answer["requests"]] == costs
    operator = await desk.ask(desk.appliance.admin_token, {"requestIds": of_ann + of_bob})
    assert operator.json() == {"requests": []}


async def test_ten_thousand_ids_and_not_one_more(desk: Desk) -> None:
    key = await desk.member("ann")
    own = await desk.call(key, 3)
    ids = [new_call_id() for _ in range(9_999)]
    answer = await desk.ask(key, {"requestIds": [*ids, own]})
    assert answer.json() == {"requests": [{"requestId": own, "costNanoUsd": 3}]}
    refused = await desk.ask(key, {"requestIds": [*ids, own, "x"]})
    assert refused.status_code == 400
    assert "10000" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"requestIds": null}', 400),
        (b'{"requestIds": "x"}', 400),
        (b'{"requestIds": [1]}', 400),
        (b'{"requestIds": ["\\u0000"]}', 400),
        (b'{"requestIds": ["\\ud800"]}', 400),
        (b'{"requestIds": ["a"], "requestIds": ["b"]}', 400),
        (b'{"requestIds": [' + b"[" * 5000 + b"]" * 5000 + b"]}", 400),
        (b'{"requestIds": ["' + b"x" * 1024 * 1024 + b'"]}', 413),
        (b'{"requestIds": ["\xff"]}', 400),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_bad_bodies_are_refused_with_a_word(desk: Desk, body: bytes, status: int) -> None:
    answer = await desk.ask(await desk.member("ann"), body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_only_with_a_good_key_and_as_json(desk: Desk) -> None:
    key = await desk.member("ann")
    assert (await desk.ask("tp_nonsense", {"requestIds": []})).status_code == 401
    assert (await desk.http.post(URL, json={"requestIds": []})).status_code == 401
    typed = {"content-type": "text/plain"}
    assert (await desk.ask(key, b'{"requestIds": []}', **typed)).status_code == 415
    assert (await desk.http.get(URL, headers={"authorization": f"Bearer {key}"})).status_code == 405
