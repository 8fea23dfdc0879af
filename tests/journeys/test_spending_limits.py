"""Promises about spending limits: in force at once, whoever they are set on, and changed freely."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance
from tests.journeys.callers import Caller, Heard, chat
from tests.journeys.ledger_file import LedgerFile
from tests.upstreams.provider import PlayedProvider

COST = 3 * 200 + 8 * 600


@dataclass
class Desk:
    """An appliance, its provider, and a user's key."""

    provider: PlayedProvider
    running: RunningAppliance
    ledger: LedgerFile
    key: str

    async def cli(self, *words: str) -> str:
        return await asyncio.to_thread(self.running.cli, *words)

    async def ask(self, **headers: str) -> Heard:
        caller = Caller(self.running.base_url, self.key)
        try:
            return await caller.ask(chat(max_tokens=8), headers=headers)
        finally:
            caller.drop()

    async def refusal(self) -> str:
        """What a call is told that a limit refuses."""
        refused = await self.ask()
        assert refused.status == 402, refused.body
        assert refused.headers["x-should-retry"] == "false"
        assert refused.error is not None
        assert refused.error["code"] == "spending_limit_reached"
        assert refused.error["type"] == "insufficient_quota"
        return str(refused.error["message"])

    def month(self, scope: str) -> tuple[int, int, int]:
        """A limit's month: the limit, what is posted, what is held."""
        (row,) = self.ledger.ask(
            "SELECT amount_nano_usd, posted_nano_usd, held_nano_usd FROM limit_months"
            " WHERE scope = ?",
            scope,
        )
        return row[0], row[1], row[2]


@pytest_asyncio.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            yield Desk(provider, running, LedgerFile(running.data_dir), key)


@pytest.mark.parametrize("scope", ["key", "user", "payer"])
async def test_a_limit_holds_from_now_on_and_counts_what_was_spent_before(
    desk: Desk, scope: str
) -> None:
    subject = desk.key if scope == "key" else "ann"
    assert (await desk.ask()).status == 200  # before there was a limit
    await desk.cli("limits", "set", scope, subject, "0.001")
    assert (await desk.ask()).status == 200
    assert desk.month(scope) == (1_000_000, 2 * COST, 0)
    await desk.cli("limits", "set", scope, subject, "0.000005")  # less than is spent
    assert "spending limit" in await desk.refusal()
    await desk.cli("limits", "set", scope, subject, "0.001")
    assert (await desk.ask()).status == 200
    await desk.cli("limits", "set", scope, subject, "0")
    await desk.refusal()
    await desk.cli("limits", "remove", scope, subject)
    assert (await desk.ask()).status == 200
    assert len(desk.provider.books) == 4
    desk.ledger.check()


async def test_a_member_s_limit_is_for_what_the_org_pays(desk: Desk) -> None:
    await desk.cli("orgs", "add", "acme", "--tier", "team", "--admin", "owner")
    await desk.cli("orgs", "members", "add", "acme", "ann")
    await desk.cli("limits", "set", "member", "acme/ann", "0")
    named = {"X-HF-Bill-To": "acme"}
    assert (await desk.ask(**named)).status == 402
    assert (await desk.ask()).status == 200
    await desk.cli("limits", "set", "member", "acme/ann", "1")
    assert (await desk.ask(**named)).status == 200
    assert desk.month("member") == (10**9, COST, 0)


async def test_a_limit_outlives_kill_nine_with_what_is_spent(tmp_path: Path) -> None:
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        key = ""
        for life in range(3):
            with appliance(tmp_path / "data", config) as running:
                if not key:
                    key = await asyncio.to_thread(running.user, "ann", "pro")
                    words = ("limits", "set", "user", "ann", "0.0003")
                    await asyncio.to_thread(running.cli, *words)
                desk = Desk(provider, running, LedgerFile(running.data_dir), key)
                for _ in range(20):
                    answered = await desk.ask()
                assert answered.status == (402 if life == 2 else 200)
                running.kill()
        limit, posted, held = desk.month("user")
        assert (limit, held) == (300_000, 0)
        assert posted == COST * sum(booked.finished for booked in provider.books) <= limit
        desk.ledger.check()


async def test_events_tell_of_80_and_of_100_percent_once(desk: Desk) -> None:
    """A call of these needs about $0.00008, so the last that fits is not far from the limit."""
    await desk.cli("limits", "set", "user", "ann", "0.0005")
    while (await desk.ask()).status == 200:
        pass
    for _ in range(3):
        await desk.refusal()
    found = desk.ledger.ask(
        "SELECT kind, scope, amount_nano_usd, limit_nano_usd FROM events ORDER BY id"
    )
    ((near, *nearly), (full, *fully)) = found
    assert (near, full) == ("limit_80", "limit_100")
    assert (nearly[0], nearly[2]) == (fully[0], fully[2]) == ("user", 500_000)
    assert 400_000 <= nearly[1] < 400_000 + COST
    assert 420_000 - COST < fully[1] <= 500_000
    assert json.loads(await desk.cli("limits", "list", "--json"))[0]["amount_nano_usd"] == 500_000
