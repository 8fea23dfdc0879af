"""Promises (I18) about who pays: the user, the org that a call names, or the org that pays for its
members by default; found out and kept in the transaction that places the hold.

``TURNPIKE_IN_FLIGHT`` sets how many calls run while their membership ends, as far as the limit on
open files allows.
"""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from tests.appliance import RunningAppliance, appliance
from tests.journeys.callers import Caller, Heard, chat
from tests.journeys.ledger_file import CallRow, LedgerFile
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import SCENES

FILES_MAX = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
IN_FLIGHT = min(int(os.environ.get("TURNPIKE_IN_FLIGHT", "1000")), FILES_MAX // 4)
CONFIG = """
[server]
port = 0
drain_seconds_max = 1

[[providers]]
id = "first"
plugin = "openai_compatible"
base_url = "{base_url}"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
[[providers.models]]
id = "acme/dear"
price = {{ input = "2", output = "6" }}

[[providers]]
id = "second"
plugin = "openai_compatible"
base_url = "{base_url}"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
price = {{ input = "0.20", output = "0.60" }}
"""
COST = 3 * 200 + 8 * 600


@dataclass
class Town:
    """A running appliance with an org and two users of the test's own. Ann belongs to it."""

    provider: PlayedProvider
    running: RunningAppliance
    ledger: LedgerFile
    org: str = ""
    ann: str = ""
    bob: str = ""
    keys: tuple[str, ...] = ()

    async def cli(self, *words: str) -> str:
        return await asyncio.to_thread(self.running.cli, *words)

    async def ask(
        self, who: str, bill_to: str = "", *, model: str = "acme/tiny", stream: bool = False
    ) -> Heard:
        key = dict(zip((self.ann, self.bob), self.keys, strict=True))[who]
        caller = Caller(self.running.base_url, key)
        headers = {"X-HF-Bill-To": bill_to} if bill_to else {}
        try:
            return await caller.ask(chat(model=model, stream=stream), headers=headers)
        finally:
            caller.drop()

    def paid_by(self, heard: Heard) -> CallRow:
        """The usage row of an answered call."""
        assert heard.status == 200, heard.body
        return self.ledger.calls()[heard.call_id]

    def user_id(self, name: str) -> str:
        return self.ledger.id_of("users", name)

    @property
    def org_id(self) -> str:
        return self.ledger.id_of("orgs", self.org)

    def left(self, payer_id: str) -> int:
        """A payer's credit."""
        credit = "SELECT coalesce(sum(credit_nano_usd), 0) FROM wallets WHERE payer_id = ?"
        left: int = self.ledger.one(credit, payer_id)
        return left


def code(heard: Heard) -> tuple[int, str]:
    assert heard.error is not None, heard.body
    return heard.status, heard.error["code"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with PlayedProvider() as provider:
        data_dir = tmp_path_factory.mktemp("orgs") / "data"
        with appliance(data_dir, CONFIG.format(base_url=provider.base_url)) as running:
            yield Town(provider, running, LedgerFile(data_dir))


@pytest_asyncio.fixture(loop_scope="module")
async def town(place: Town) -> Town:
    number = len(place.ledger.ask("SELECT 1 FROM orgs"))
    org, ann, bob = f"acme-{number}", f"ann-{number}", f"bob-{number}"
    place.provider.always = SCENES["normal"]

    def build() -> tuple[str, ...]:
        running = place.running
        keys = (running.user(ann), running.user(bob))
        running.cli("orgs", "add", org, "--tier", "team", "--admin", "owner")
        running.cli("orgs", "members", "add", org, ann)
        return keys

    keys = await asyncio.to_thread(build)
    return replace(place, org=org, ann=ann, bob=bob, keys=keys)


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_org_that_is_named_pays_and_nobody_else(town: Town) -> None:
    own, named = await town.ask(town.ann), await town.ask(town.ann, town.org)
    by_id = await town.ask(town.ann, town.org_id)
    assert town.paid_by(own).payer_id == town.user_id(town.ann)
    assert town.paid_by(named).payer_id == town.paid_by(by_id).payer_id == town.org_id
    assert town.left(town.user_id(town.ann)) == 100_000_000 - COST
    assert town.left(town.org_id) == 2 * 2_000_000_000 - 2 * COST  # two seats, one pool
    assert town.paid_by(await town.ask(town.ann, town.ann)).payer_id == town.user_id(town.ann)


async def test_who_is_not_a_member_is_refused_before_anything_is_sent(town: Town) -> None:
    sent = len(town.provider.books)
    for name in (town.org, town.org_id, "no-such-org", "group_none", "x" * 128):
        for stream in (False, True):
            refused = await town.ask(town.bob, name, stream=stream)
            assert code(refused) == (403, "not_a_member")
            assert refused.error is not None
            assert refused.error["param"] == "X-HF-Bill-To"
    assert len(town.provider.books) == sent
    assert town.left(town.org_id) in (0, 4_000_000_000)
    assert (await town.ask(town.bob, "x" * 129)).status == 400


async def test_a_default_payer_pays_unless_another_is_named(town: Town) -> None:
    await town.cli("orgs", "default-payer", town.org, "on")
    assert town.paid_by(await town.ask(town.ann)).payer_id == town.org_id
    own = await town.ask(town.ann, town.ann)
    assert town.paid_by(own).payer_id == town.user_id(town.ann)
    assert town.paid_by(await town.ask(town.bob)).payer_id == town.user_id(town.bob)
    await town.cli("orgs", "default-payer", town.org, "off")
    assert town.paid_by(await town.ask(town.ann)).payer_id == town.user_id(town.ann)


async def test_members_share_one_pool(town: Town) -> None:
    await town.cli("orgs", "members", "add", town.org, town.bob)
    heard = await asyncio.gather(
        *(town.ask(who, town.org) for who in (town.ann, town.bob) for _ in range(5))
    )
    calls = town.ledger.calls()
    assert {calls[each.call_id].payer_id for each in heard} == {town.org_id}
    assert town.left(town.org_id) == 3 * 2_000_000_000 - 10 * COST


async def test_credit_of_an_org_is_for_what_the_org_pays(town: Town) -> None:
    """Ann's own credit is gone; her org's does not help her, unless it pays."""
    await town.cli("credit", "give", town.org, "50", "--reference", "bought")
    await town.cli("limits", "set", "payer", town.ann, "0")
    assert code(await town.ask(town.ann)) == (402, "spending_limit_reached")
    answered = await town.ask(town.ann, town.org)
    assert town.paid_by(answered).payer_id == town.org_id
    bought = "SELECT spent_nano_usd FROM grants WHERE payer_id = ? AND kind = 'purchased'"
    assert town.ledger.one(bought, town.org_id) == 0  # the month's credit goes first
    assert town.left(town.org_id) == 54_000_000_000 - COST


async def test_a_resource_group_is_billed_by_its_members(town: Town) -> None:
    await town.cli("orgs", "groups", "add", town.org, "lab")
    await town.cli("orgs", "members", "add", town.org, town.bob)
    await town.cli("orgs", "groups", "add-member", town.org, "lab", town.ann)
    group = town.ledger.one("SELECT id FROM resource_groups WHERE org_id = ?", town.org_id)
    row = town.paid_by(await town.ask(town.ann, group))
    assert (row.payer_id, row.group_id) == (town.org_id, group)
    assert code(await town.ask(town.bob, group)) == (403, "not_a_member")
    await town.cli("orgs", "groups", "remove-member", town.org, "lab", town.ann)
    assert code(await town.ask(town.ann, group)) == (403, "not_a_member")


async def test_what_an_org_has_switched_off_it_does_not_pay_for(town: Town) -> None:
    off = ("orgs", "switch-off", town.org)
    await town.cli(*off, "model", "acme/dear", "--reason", "too dear for us")
    refused = await town.ask(town.ann, town.org, model="acme/dear")
    assert code(refused) == (403, "model_switched_off")
    assert refused.error is not None
    assert "too dear for us" in refused.error["message"]
    own = await town.ask(town.ann, model="acme/dear")
    assert town.paid_by(own).payer_id == town.user_id(town.ann)
    await town.cli(*off, "provider", "first", "--reason", "no contract")
    for _ in range(3):
        row = town.paid_by(await town.ask(town.ann, town.org))
        assert (row.provider, row.attempts) == ("second", 1)
    pinned = await town.ask(town.ann, town.org, model="acme/tiny:first")
    assert code(pinned) == (403, "provider_switched_off")
    assert pinned.error is not None
    assert "no contract" in pinned.error["message"]
    await town.cli(*off, "provider", "second", "--reason", "nor there")
    assert code(await town.ask(town.ann, town.org)) == (403, "provider_switched_off")
    await town.cli("orgs", "switch-on", town.org, "provider", "first")
    assert town.paid_by(await town.ask(town.ann, town.org)).provider == "first"


@pytest.mark.timeout(60 + IN_FLIGHT // 5)
async def test_a_member_who_goes_leaves_calls_that_the_org_still_pays(town: Town) -> None:
    """Calls in flight settle on the payer that they were admitted for; the next one is refused."""
    sent = len(town.provider.books)
    town.provider.gate.clear()
    calls = [
        asyncio.create_task(town.ask(town.ann, town.org, stream=bool(number % 2)))
        for number in range(IN_FLIGHT)
    ]
    await town.provider.wait_until(lambda: len(town.provider.books) == sent + IN_FLIGHT, 60)
    await town.cli("orgs", "members", "remove", town.org, town.ann)
    assert code(await town.ask(town.ann, town.org)) == (403, "not_a_member")
    town.provider.gate.set()
    heard = await asyncio.gather(*calls)
    rows = town.ledger.calls()
    assert {rows[each.call_id].payer_id for each in heard} == {town.org_id}
    assert [rows[each.call_id].cost for each in heard] == [COST] * IN_FLIGHT
    assert town.ledger.spent("payer_id", town.org_id) == COST * IN_FLIGHT
    assert town.paid_by(await town.ask(town.ann)).payer_id == town.user_id(town.ann)
    held = "SELECT held_nano_usd FROM wallets WHERE payer_id = ?"
    assert town.ledger.one(held, town.org_id) == 0
    town.ledger.check()
