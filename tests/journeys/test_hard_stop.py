"""Promise (B2, I5, I6): a hard stop cannot be overspent by a nano, and is usable to the end.

10,000 attempts over 64 connections against $0.10: three kinds of prices, two providers, a fifth of
the clients drops its connection at some byte, a fifth loses its first provider. The providers'
books are the witness. ``TURNPIKE_ATTEMPTS`` sets another count, ``TURNPIKE_SEED`` replays a run.
"""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.appliance import RunningAppliance, appliance
from tests.journeys.callers import Caller, Heard, chat, seed_of_run
from tests.journeys.ledger_file import LedgerFile
from tests.journeys.market import Errand, Market, broken_off, errands, open_market, send_crowd

ATTEMPTS = int(os.environ.get("TURNPIKE_ATTEMPTS", "10000"))
CONNECTIONS = 64
CREDIT = 100_000_000
# The providers' own failures are told where the retry budget leaves no second try.
STATUSES = {200, 402, 502, 503}


def check_refusals(heard: dict[str, Heard], code: str = "insufficient_quota") -> int:
    """Every refusal is one that an OpenAI client understands and does not repeat; how many."""
    refused = [each for each in heard.values() if each.status == 402]
    for each in refused:
        assert each.headers["x-should-retry"] == "false"
        if not each.dropped:
            error = each.error
            assert error is not None
            assert error.keys() == {"message", "type", "param", "code", "request_id", "metadata"}
            assert (error["type"], error["code"]) == ("insufficient_quota", code)
    assert {each.status for each in heard.values() if not each.dropped} <= STATUSES
    return len(refused)


def check_against_books(market: Market, heard: dict[str, Heard], ledger: LedgerFile) -> int:
    """Each call that the client knows was charged what the providers say it cost, the others in
    sum; how much it came to."""
    calls, owed = ledger.calls(), market.owed()
    expected_total = 0
    for tag, answer in heard.items():
        errand = market.todo[tag]
        expected = owed.get(tag, 0)
        if errand.fails == "after" and errand.stream and answer.error and answer.status == 200:
            assert not answer.done
            expected = broken_off(errand, answer.text)
        expected_total += expected
        if answer.status in (200, 502, 503):
            row = calls[answer.call_id]
            assert row.cost == expected, (errand, row, answer.body)
            assert row.overrun == 0
        elif answer.status == 402:
            assert expected == 0
            assert answer.call_id not in calls
    charged = sum(row.cost for row in calls.values())
    assert charged == expected_total
    return charged


@pytest.mark.slow
@pytest.mark.timeout(60 + ATTEMPTS // 20)
async def test_ten_thousand_attempts_spend_the_credit_and_not_a_nano_more(tmp_path: Path) -> None:
    chance = seed_of_run()
    async with open_market() as market:
        with appliance(tmp_path / "data", market.toml()) as running:
            key = await asyncio.to_thread(running.user, "ann")
            todo = errands(chance, ATTEMPTS)
            market.todo = {errand.tag: errand for errand in todo}
            heard = await send_crowd(running.base_url, [key], todo, CONNECTIONS)
            ledger = LedgerFile(running.data_dir)
            await ledger.settled()
            refused = check_refusals(heard)
            charged = check_against_books(market, heard, ledger)
            house = ledger.check()
    ann = ledger.id_of("users", "ann")
    ((granted, spent),) = ledger.ask("SELECT granted_nano_usd, spent_nano_usd FROM grants")
    left, held = ledger.ask("SELECT credit_nano_usd, held_nano_usd FROM wallets")[0]
    assert (granted, spent, left, held) == (CREDIT, charged, CREDIT - charged, 0)
    assert ledger.spent("payer_id", ann) == charged <= CREDIT
    assert house["overrun"] == 0
    if ATTEMPTS >= 10_000:
        assert refused > 0
        assert charged >= CREDIT * 95 // 100


def usd(nano_usd: int) -> str:
    return f"{nano_usd // 10**9}.{nano_usd % 10**9:09d}"


KEY, USER, GROUP, ORG = 10_000_000, 16_000_000, 22_000_000, 30_000_000


async def in_org(running: RunningAppliance) -> tuple[dict[str, str], str]:
    """Ann with two keys and Bob, in a resource group of an org, with limits on four levels."""

    def build() -> tuple[dict[str, str], str]:
        keys = {"ann": running.user("ann"), "bob": running.user("bob"), "ann 2": running.key("ann")}
        cli = running.cli
        cli("orgs", "add", "acme", "--tier", "team", "--admin", "owner")
        cli("orgs", "groups", "add", "acme", "lab")
        for name in ("ann", "bob"):
            cli("orgs", "members", "add", "acme", name)
            cli("orgs", "groups", "add-member", "acme", "lab", name)
        group = LedgerFile(running.data_dir).one("SELECT id FROM resource_groups")
        for scope, subject, most in (
            ("key", keys["ann"], KEY),
            ("user", "ann", USER),
            ("group", group, GROUP),
            ("payer", "acme", ORG),
        ):
            cli("limits", "set", scope, subject, usd(most))
        return keys, group

    return await asyncio.to_thread(build)


@pytest.mark.slow
@pytest.mark.timeout(60 + ATTEMPTS // 20)
async def test_four_nested_limits_hold_at_once(tmp_path: Path) -> None:
    """Ann's first key may spend less than Ann, Ann less than the group, that less than the org."""
    chance = seed_of_run()
    async with open_market() as market:
        with appliance(tmp_path / "data", market.toml()) as running:
            keys, group = await in_org(running)
            heard: dict[str, Heard] = {}
            rounds = (("ann", group), ("ann 2", group), ("bob", group), ("bob", "acme"))
            for number, (name, bill_to) in enumerate(rounds):
                named = (("X-HF-Bill-To", bill_to),)
                todo: list[Errand] = [
                    replace(errand, tag=f"r{number}{errand.tag}", headers=named)
                    for errand in errands(chance, max(ATTEMPTS // 6, 1600))
                ]
                market.todo.update((errand.tag, errand) for errand in todo)
                heard |= await send_crowd(running.base_url, [keys[name]], todo, 32)
            ledger = LedgerFile(running.data_dir)
            await ledger.settled()
            assert check_refusals(heard, "spending_limit_reached") > 0
            charged = check_against_books(market, heard, ledger)
            house = ledger.check()
    assert house["overrun"] == 0
    ann, acme = ledger.id_of("users", "ann"), ledger.id_of("orgs", "acme")
    first_key = ledger.one("SELECT subject_id FROM spending_limits WHERE scope = 'key'")
    spent = {
        KEY: ledger.spent("key_id", first_key),
        USER: ledger.spent("user_id", ann),
        GROUP: ledger.spent("group_id", group),
        ORG: ledger.spent("payer_id", acme),
    }
    for limit, used in spent.items():
        assert limit * 95 // 100 <= used <= limit, spent
    assert charged == spent[ORG]
    kept = ledger.ask("SELECT amount_nano_usd, posted_nano_usd, held_nano_usd FROM limit_months")
    assert {amount: (posted, held) for amount, posted, held in kept} == {
        limit: (used, 0) for limit, used in spent.items()
    }


COMPUTE_CONFIG = """
[tiers.free]
monthly_credit_usd = "0.01"

[local]
hardware = { name = "cpu", price_usd_per_second = "0.01" }
[[local.models]]
id = "acme/fake"
source = "fake:tokens_per_second=400"
"""


async def test_compute_stops_at_the_credit_too(tmp_path: Path) -> None:
    """A second of compute is all there is; the engine itself ends answers at what is held."""

    async def spend(running: RunningAppliance, key: str) -> tuple[int, Heard]:
        caller, answers = Caller(running.base_url, key), 0
        body = chat("count to five", model="acme/fake", max_tokens=20)
        while (heard := await caller.ask(body)).status == 200:
            answers += 1
        caller.drop()
        return answers, heard

    with appliance(tmp_path / "data", COMPUTE_CONFIG) as running:
        key = await asyncio.to_thread(running.user, "ann")
        ends = await asyncio.gather(*(spend(running, key) for _ in range(8)))
        ledger = LedgerFile(running.data_dir)
        check_refusals({str(number): refusal for number, (_, refusal) in enumerate(ends)})
        calls = ledger.calls()
        assert ledger.check()["overrun"] == 0
    assert all(refusal.status == 402 for _, refusal in ends)
    assert len(calls) == sum(answers for answers, _ in ends) > 0
    assert 8_500_000 <= sum(row.cost for row in calls.values()) <= 10_000_000
