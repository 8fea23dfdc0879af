"""Promise: with a provider key of one's own the provider is paid, not us; and when that key fails,
nobody is charged unless they asked for it."""

import asyncio
import json
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.ledger.audit import audit_file
from tests.appliance import RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Booked, Scene

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

# Both serve the model; without a key of one's own the first, cheaper one is asked.
CONFIG = """
[server]
port = 0
[routing]
default_policy = "cheapest"
probes = false
[tiers.empty]
monthly_credit_usd = "0.00"

[[providers]]
id = "mock"
plugin = "openai_compatible"
base_url = "{mock}"
api_key = "env:TP_MOCK_KEY"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}

[[providers]]
id = "other"
plugin = "openai_compatible"
base_url = "{other}"
api_key = "env:TP_OTHER_KEY"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
price = {{ input = "2", output = "6" }}
"""
ENV = {"TP_MOCK_KEY": "operators-at-mock", "TP_OTHER_KEY": "operators-at-other"}
MODEL = "acme/tiny"
COST = 200 + 8 * 600
COST_AT_OTHER = 2_000 + 8 * 6_000


@dataclass
class Town:
    """Three fresh users on a running appliance: alice and bob belong to org acme, which alice runs;
    carol has nothing, and no credit either. ``names`` are what they are really called."""

    running: RunningAppliance
    mock: PlayedProvider
    other: PlayedProvider
    names: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    async def settle_in(self) -> None:
        """Make them all."""
        at = uuid.uuid4().hex[:8]
        self.names = {who: f"{who}-{at}" for who in ("alice", "bob", "carol", "acme")}
        for who, tier in (("alice", "pro"), ("bob", "pro"), ("carol", "empty")):
            name = self.names[who]
            await self.operator("POST", "/api/users", {"name": name, "tier": tier})
            self.keys[who] = (await self.operator("POST", "/api/keys", {"user": name}))["key"]
        acme, alice, bob = (self.names[who] for who in ("acme", "alice", "bob"))
        await self.operator("POST", "/api/orgs", {"name": acme, "tier": "team", "admin": alice})
        await self.operator("POST", f"/api/orgs/{acme}/members", {"user": bob})

    async def operator(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """A request of the command line's."""
        found = json.loads((self.running.data_dir / "server.json").read_text())
        async with self._http(found["token"]) as http:
            response = await http.request(method, path, json=body, params=query)
        assert response.is_success, response.text
        return response.json()

    async def own(
        self, who: str, provider: str, secret: str | None, *, of_org: bool = False, **more: bool
    ) -> None:
        """Set a provider key of one's own, or of one's org; None removes it."""
        base = f"/api/orgs/{self.names['acme']}/provider-keys" if of_org else "/api/provider-keys"
        async with self._http(self.keys[who]) as http:
            path = f"{base}/{provider}"
            if secret is None:
                response = await http.delete(path)
            else:
                response = await http.put(path, json={"secret": secret, **more})
        assert response.is_success, response.text

    async def ask(
        self, who: str, *, stream: bool = False, bill_to: str = "", explain: bool = False
    ) -> httpx.Response:
        messages = [{"role": "user", "content": "Hello"}]
        body = {"model": MODEL, "messages": messages, "stream": stream}
        headers = {"X-HF-Bill-To": self.names[bill_to]} if bill_to else {}
        if explain:
            headers["X-Turnpike-Explain"] = "1"
        async with self._http(self.keys[who]) as http:
            return await http.post("/v1/chat/completions", json=body, headers=headers)

    async def listed(self, who: str) -> list[dict[str, Any]]:
        async with self._http(self.keys[who]) as http:
            found: list[dict[str, Any]] = (await http.get("/api/provider-keys")).json()["data"]
            return found

    async def row(self, answer: httpx.Response) -> dict[str, Any]:
        """The usage row of a call."""
        found = await self.operator("GET", "/api/usage/rows", limit="20")
        (row,) = [
            each for each in found["data"] if each["call_id"] == answer.headers["inference-id"]
        ]
        return dict(row)

    async def left(self, who: str) -> Any:
        """What the payer's month looks like in the books."""
        found = await self.operator("GET", "/api/billing", payer=self.names[who])
        return {key: value for key, value in found.items() if "nano_usd" in key}

    def _http(self, bearer: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.running.base_url,
            headers={"Authorization": f"Bearer {bearer}"},
            timeout=60,
            trust_env=False,
        )


def bearers(books: list[Booked]) -> list[str]:
    """With what the provider was called."""
    return [each.headers.get("authorization", "").removeprefix("Bearer ") for each in books]


@asynccontextmanager
async def opened(
    data_dir: Path, mock: PlayedProvider, other: PlayedProvider
) -> AsyncIterator[RunningAppliance]:
    """The appliance between the two."""
    config = CONFIG.format(mock=mock.base_url, other=other.base_url)
    started = appliance(data_dir, config, env=ENV)
    running = await asyncio.to_thread(started.__enter__)
    try:
        yield running
    finally:
        await asyncio.to_thread(started.__exit__, None, None, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    data_dir = tmp_path_factory.mktemp("byok") / "data"
    async with (
        PlayedProvider() as mock,
        PlayedProvider() as other,
        opened(data_dir, mock, other) as running,
    ):
        yield Town(running, mock, other)


@pytest_asyncio.fixture(loop_scope="module")
async def town(place: Town) -> Town:
    fresh = Town(place.running, place.mock, place.other)
    fresh.mock.books.clear()
    fresh.other.books.clear()
    await fresh.settle_in()
    return fresh


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_provider_is_called_with_it_and_nothing_is_charged(
    town: Town, stream: bool
) -> None:
    before = await town.left("alice")
    plain = await town.ask("alice", stream=stream)
    assert (await town.row(plain))["cost_nano_usd"] == COST
    assert bearers(town.mock.books) == ["operators-at-mock"]
    assert town.other.books == []

    await town.own("alice", "other", "alices-own-key")
    after_one = await town.left("alice")
    answer = await town.ask("alice", stream=stream)
    assert answer.status_code == 200
    assert bearers(town.other.books) == ["alices-own-key"]
    assert len(town.mock.books) == 1
    row = await town.row(answer)
    assert (row["provider"], row["byok"], row["cost_nano_usd"]) == ("other", True, 0)
    assert (row["input_tokens"], row["output_tokens"]) == (1, 8)
    assert await town.left("alice") == after_one != before

    # Bob's calls, and hers once it is gone, are as before.
    assert (await town.row(await town.ask("bob")))["cost_nano_usd"] == COST
    await town.own("alice", "other", None)
    assert (await town.row(await town.ask("alice")))["cost_nano_usd"] == COST
    assert len(town.other.books) == 1
    assert "alices-own-key" not in bearers(town.mock.books)
    assert audit_file(town.running.data_dir / "turnpike.db").problems == []


async def test_it_needs_no_credit(town: Town) -> None:
    assert (await town.ask("carol")).status_code == 402
    await town.own("carol", "mock", "carols-own-key")
    answer = await town.ask("carol")
    assert answer.status_code == 200
    assert bearers(town.mock.books) == ["carols-own-key"]
    assert (await town.row(answer))["cost_nano_usd"] == 0


FAILING = ["unauthorised", "forbidden", "no_credit", "no_quota", "rate_limited", "server_error"]


@pytest.mark.parametrize("scene", [*FAILING, "reset_at_once", "garbage", "html"])
async def test_a_failing_key_is_nobodys_bill(town: Town, scene: str) -> None:
    await town.own("alice", "mock", "alices-own-key")
    town.mock.script(scene)
    before = await town.left("alice")
    answer = await town.ask("alice")
    assert 400 <= answer.status_code < 600
    assert "alices-own-key" not in answer.text
    assert bearers(town.mock.books) == ["alices-own-key"]
    assert town.other.books == []
    assert await town.left("alice") == before
    # The operator's key for this provider is as good as it was, and so is the provider.
    again = await town.ask("bob")
    assert again.status_code == 200
    assert bearers(town.mock.books)[-1] == "operators-at-mock"
    assert (await town.ask("alice")).status_code == 200


@pytest.mark.parametrize("scene", FAILING)
async def test_paid_fallback_is_a_wish(town: Town, scene: str) -> None:
    await town.own("alice", "mock", "alices-own-key", paid_fallback=True)
    assert (await town.row(await town.ask("alice")))["cost_nano_usd"] == 0
    town.mock.script(scene)
    answer = await town.ask("alice", explain=True)
    assert answer.status_code == 200
    assert bearers(town.mock.books) == ["alices-own-key"] * 2
    assert bearers(town.other.books) == ["operators-at-other"]
    row = await town.row(answer)
    assert (row["provider"], row["byok"]) == ("other", False)
    assert row["cost_nano_usd"] == COST_AT_OTHER
    for secret in ("alices-own-key", *ENV.values()):
        assert secret not in answer.text


async def test_a_refused_key_is_shown_to_its_owner(town: Town) -> None:
    await town.own("alice", "mock", "alices-own-key-0123456789")
    (listed,) = await town.listed("alice")
    assert (listed["last_used_at_ms"], listed["last_failure"]) == (None, None)
    await town.ask("alice")
    town.mock.script("unauthorised")
    refused = await town.ask("alice")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (403, "provider_key_refused")
    async with asyncio.timeout(10):
        while True:  # it is noted behind the answer's back
            (listed,) = await town.listed("alice")
            if listed["last_failure"] and listed["last_used_at_ms"]:
                break
            await asyncio.sleep(0.02)
    assert listed["last_failure"] == "auth"
    assert listed["hint"] == "6789"


async def test_an_orgs_key_is_for_what_the_org_pays(town: Town) -> None:
    await town.own("alice", "mock", "the-orgs-key", of_org=True)
    await town.own("bob", "other", "bobs-own-key")
    answer = await town.ask("bob", bill_to="acme")
    row = await town.row(answer)
    assert (row["provider"], row["byok"], row["cost_nano_usd"]) == ("mock", True, 0)
    assert row["payer_name"] == town.names["acme"]
    assert bearers(town.mock.books) == ["the-orgs-key"]

    row = await town.row(await town.ask("bob"))
    assert (row["provider"], row["byok"], row["payer_name"]) == (
        "other",
        True,
        town.names["bob"],
    )
    assert bearers(town.other.books) == ["bobs-own-key"]
    # Alice's own calls are not the org's, though she set its key.
    assert (await town.row(await town.ask("alice")))["byok"] is False
    assert bearers(town.mock.books) == ["the-orgs-key", "operators-at-mock"]


async def test_a_key_that_is_replaced_is_used_no_more(town: Town) -> None:
    for number in range(5):
        await town.own("alice", "mock", f"alices-key-{number}")
        assert (await town.ask("alice")).status_code == 200
    assert bearers(town.mock.books) == [f"alices-key-{number}" for number in range(5)]


@pytest.mark.asyncio(loop_scope="function")
async def test_keys_outlive_a_kill_and_rotations_under_load(tmp_path: Path) -> None:
    async with PlayedProvider() as mock, PlayedProvider() as other:
        data_dir = tmp_path / "data"
        async with opened(data_dir, mock, other) as running:
            town = Town(running, mock, other)
            await town.settle_in()
            await town.own("alice", "mock", "alices-own-key")
            running.kill()
        async with opened(data_dir, mock, other) as running:
            town.running = running
            stop = asyncio.Event()

            async def keep_asking() -> int:
                asked = 0
                while not stop.is_set() or asked < 3:
                    assert (await town.ask("alice")).status_code == 200
                    asked += 1
                return asked

            asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
            kids = set()
            for _ in range(3):
                done = await town.operator("POST", "/api/secrets/rotate")
                assert (done["rewrapped"], done["unreadable"]) == (1, 0)
                kids.add(done["kid"])
            stop.set()
            total = sum(await asyncio.gather(*asking))
            assert len(kids) == 3
            assert bearers(mock.books) == ["alices-own-key"] * total
            assert other.books == []


@pytest.mark.asyncio(loop_scope="function")
async def test_a_row_that_was_tampered_with_opens_nothing_and_charges_nobody(
    tmp_path: Path,
) -> None:
    """Carol's key, put in the place of alice's; and alice's fellow bob's, made to allow paid
    routes."""
    async with PlayedProvider() as mock, PlayedProvider() as other:
        data_dir = tmp_path / "data"
        async with opened(data_dir, mock, other) as running:
            town = Town(running, mock, other)
            await town.settle_in()
            for who in ("alice", "bob", "carol"):
                await town.own(who, "mock", f"{who}s-own-key")
            assert await asyncio.to_thread(running.stop) == 0
        tamper(data_dir / "turnpike.db", town.names)
        mock.always = Scene(name="unauthorised", status=401, body=b"{}")
        async with opened(data_dir, mock, other) as running:
            town.running = running
            for who in ("alice", "bob"):
                before = await town.left(who)
                assert (await town.ask(who)).status_code >= 400
                assert await town.left(who) == before
        assert not {"carols-own-key", *ENV.values()} & set(bearers(mock.books))
        assert "bobs-own-key" not in bearers(mock.books)
        assert other.books == []


def tamper(database: Path, names: dict[str, str]) -> None:
    whose = "owner_id = (SELECT id FROM users WHERE name = ?)"
    with closing(sqlite3.connect(database)) as connection:
        parts = connection.execute(
            f"SELECT wrapped_key, box FROM provider_keys WHERE {whose}", (names["carol"],)
        ).fetchone()
        changed = connection.execute(
            f"UPDATE provider_keys SET wrapped_key = ?, box = ? WHERE {whose}",
            (*parts, names["alice"]),
        )
        changed = connection.execute(
            f"UPDATE provider_keys SET paid_fallback = 1 WHERE {whose}", (names["bob"],)
        )
        assert changed.rowcount == 1
        connection.commit()
