"""Promise (I13, I14): calls whose cost their provider says later outlive ``kill -9``: it is asked
for by the provider's own ids, charged once, and a duplicate never becomes a second call."""

import asyncio
import json
import tomllib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from app.boot import Appliance, open_appliance
from app.config import parse
from app.jobs import schedule
from tests.appliance import appliance
from tests.journeys.callers import Caller, Heard, chat
from tests.journeys.ledger_file import LedgerFile
from tests.upstreams.billing import PlayedBilling
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

CONFIG = """
[server]
port = 0

[[providers]]
id = "partner"
plugin = "openai_compatible"
base_url = "{base_url}"
api_key = "env:PARTNER_KEY"
billing = {{ url = "{billing_url}", api_key = "env:PARTNER_KEY" }}
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
price = {{ input = "200", output = "600" }}
"""


@asynccontextmanager
async def in_process(config: str, data_dir: Path) -> Any:
    """The appliance within the test, whose polls a test can hurry up."""
    quiet = {"routing": {"probes": False}, "disk": {"ballast_bytes": 0, "free_bytes_min": 0}}
    parsed = parse(quiet | tomllib.loads(config), source="test", data_dir=str(data_dir))
    async with open_appliance(parsed, serving=True) as running:
        transport = httpx.ASGITransport(cast(Any, running.asgi))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield running, http


async def ask(base_url: str, key: str, name: str) -> Heard:
    caller = Caller(base_url, key)
    try:
        return await caller.ask(chat(stream=True), headers={"Idempotency-Key": name})
    finally:
        caller.drop()


async def released(running: Appliance, ledger: LedgerFile) -> None:
    """Wait until no call holds anything."""
    ann = ledger.id_of("users", "ann")
    async with asyncio.timeout(30):
        while (await running.services.ledger.balance(ann)).held_nano_usd:
            await running.services.ledger.wait_for_release(ann, 1.0)


async def test_bound_calls_are_asked_for_after_kill_nine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARTNER_KEY", "partner-key")
    monkeypatch.setattr(schedule, "GIVE_UP_EVERY_S", 0.1)
    data_dir = tmp_path / "data"
    ledger = LedgerFile(data_dir)
    async with (
        PlayedProvider(request_id_header="Inference-Id") as provider,
        PlayedBilling() as billing,
    ):
        config = CONFIG.format(base_url=provider.base_url, billing_url=billing.url)
        with appliance(data_dir, config) as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            provider.script("normal", Scene(hang_after=4), Scene(wait_s=1000.0))
            whole = await ask(running.base_url, key, "whole")
            calls = []
            for name in ("broken off", "never began"):
                met = len(provider.books)
                calls.append(asyncio.create_task(ask(running.base_url, key, name)))
                await provider.wait_until(lambda met=met: len(provider.books) > met)  # type: ignore[misc]
            await provider.wait_until(lambda: provider.books[1].hanging)
            async with asyncio.timeout(20):
                while len(ledger.ask("SELECT 1 FROM provider_requests")) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            running.kill()
            await asyncio.gather(*calls, return_exceptions=True)
        ids = [booked.id for booked in provider.books]
        assert ledger.open_holds() == 3
        async with in_process(config, data_dir) as (back, http):
            waiting = ledger.ask("SELECT upstream_id FROM pending_costs ORDER BY upstream_id")
            assert [row[0] for row in waiting] == ids[:2]
            assert ledger.open_holds() == 2  # nobody knows the third one's id: it is given up
            billing.costs |= {ids[0]: "7001", ids[1]: "3002"}
            await released(back, ledger)
            http.headers["authorization"] = f"Bearer {key}"
            for name, status in (("whole", 200), ("broken off", 502), ("broken off", 502)):
                again = await http.post(
                    "/v1/chat/completions",
                    content=json.dumps(chat(stream=True)),
                    headers={"idempotency-key": name, "content-type": "application/json"},
                )
                assert again.status_code == status, name
            assert again.json()["error"]["code"] == "answer_broke_off"
            assert again.headers["x-should-retry"] == "false"
    assert len(provider.books) == 3
    rows = ledger.calls()
    assert sorted(row.cost for row in rows.values()) == [0, 3002, 7001]
    assert rows[whole.call_id].cost == 7001
    assert {row.outcome for row in rows.values()} == {"completed", "killed"}
    ledger.check()
