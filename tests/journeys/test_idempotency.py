"""Promise (I4): a request that comes again under its ``Idempotency-Key`` is carried out once.

``TURNPIKE_IDEMPOTENCY_KEYS`` sets how many keys get 20 duplicates each (1,000 for a release).
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance
from tests.journeys.callers import Caller, Heard, chat, seed_of_run
from tests.journeys.ledger_file import LedgerFile
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.rates import Rates
from tests.upstreams.scenes import SCENES, Booked, Scene

KEYS = int(os.environ.get("TURNPIKE_IDEMPOTENCY_KEYS", "100"))
DUPLICATES = 20
RATES = Rates(input=200, output=600)


@dataclass
class Stage:
    """A provider, the appliance before it, and a user's client."""

    provider: PlayedProvider
    running: RunningAppliance
    ledger: LedgerFile
    user: str
    key: str
    books_before: int = 0

    @property
    def books(self) -> list[Booked]:
        """What the provider wrote down since the test began."""
        return self.provider.books[self.books_before :]

    async def hangs(self) -> None:
        """Wait until the provider has stopped in the middle of an answer."""
        await self.provider.wait_until(lambda: any(booked.hanging for booked in self.books))

    async def ask(
        self, name: str, body: dict[str, Any] | None = None, *, key: str = "", bill_to: str = ""
    ) -> Heard:
        """One request under an Idempotency-Key, on a connection of its own."""
        caller = Caller(self.running.base_url, key or self.key)
        headers = {"Idempotency-Key": name} | ({"X-HF-Bill-To": bill_to} if bill_to else {})
        try:
            return await caller.ask(body or chat(), headers=headers)
        finally:
            caller.drop()

    def charges(self) -> list[int]:
        """What the user was charged, call by call; calls that cost nothing left out."""
        user_id = self.ledger.id_of("users", self.user)
        calls = self.ledger.calls().values()
        return sorted(row.cost for row in calls if row.cost and row.user_id == user_id)

    def billed(self) -> list[int]:
        """The same by the provider's books."""
        return sorted(booked.bill(RATES) for booked in self.books if booked.finished)


CONFIG = "[server]\nport = 0\ndrain_seconds_max = 1\n" + MOCK_PROVIDER


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with PlayedProvider() as provider:
        data_dir = tmp_path_factory.mktemp("idempotency") / "data"
        with appliance(data_dir, CONFIG.format(base_url=provider.base_url)) as running:
            yield Stage(provider, running, LedgerFile(data_dir), "", "")


@pytest_asyncio.fixture(loop_scope="module")
async def stage(shop: Stage) -> Stage:
    """A user of the test's own."""
    number = len(shop.ledger.ask("SELECT 1 FROM users"))
    user = f"ann-{number}"
    key = await asyncio.to_thread(shop.running.user, user, "pro")
    shop.provider.always = SCENES["normal"]
    return replace(shop, user=user, key=key, books_before=len(shop.provider.books))


pytestmark = pytest.mark.asyncio(loop_scope="module")


def is_replayed(heard: Heard) -> bool:
    return heard.headers.get("idempotency-replayed") == "true"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_the_same_request_gets_the_same_answer_at_one_charge(
    stage: Stage, stream: bool
) -> None:
    first = await stage.ask("a", chat(stream=stream))
    for _ in range(3):
        again = await stage.ask("a", chat(stream=stream))
        assert (again.status, again.id, again.text) == (200, first.id, first.text)
        assert is_replayed(again)
        assert not stream or again.done
    assert not is_replayed(first)
    assert len(stage.books) == 1
    assert stage.charges() == stage.billed() == [3 * 200 + 8 * 600]


async def test_a_repeated_stream_has_its_tools_and_its_usage(stage: Stage) -> None:
    stage.provider.script("tools")
    body = chat(stream=True, stream_options={"include_usage": True})
    first, again = await stage.ask("a", body), await stage.ask("a", body)
    assert '"tool_1"' in first.body.decode()
    assert '"tool_1"' in again.body.decode()
    assert again.events[-2].partition('"usage":')[2] == first.events[-2].partition('"usage":')[2]
    assert again.done


async def test_another_body_under_the_key_is_422(stage: Stage) -> None:
    await stage.ask("a")
    for other in (chat("another"), chat(stream=True), chat(max_tokens=9)):
        refused = await stage.ask("a", other)
        assert refused.status == 422
        assert refused.error is not None
        assert refused.error["code"] == "idempotency_key_reused"
        assert refused.error["param"] == "Idempotency-Key"
        assert refused.headers["x-should-retry"] == "false"
    assert len(stage.books) == 1


async def test_a_repeat_while_the_first_runs_is_409(stage: Stage) -> None:
    stage.provider.script(Scene(hang_after=2))
    first = asyncio.create_task(stage.ask("a", chat(stream=True)))
    await stage.hangs()
    again = await stage.ask("a", chat(stream=True))
    other = await stage.ask("a", chat("another"))
    assert again.error is not None
    assert (again.status, again.error["code"]) == (409, "idempotency_in_flight")
    assert again.headers["x-should-retry"] == "true"
    assert int(again.headers["retry-after"]) >= 1
    assert other.status == 422
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert len(stage.books) == 1


async def test_a_failure_that_charged_nothing_leaves_the_key_free(stage: Stage) -> None:
    for scene, status in (("server_error", 502), ("bad_request", 400), ("gateway_timeout", 504)):
        stage.provider.script(scene)
        assert (await stage.ask("a")).status == status
    good = await stage.ask("a")
    assert (good.status, is_replayed(good)) == (200, False)
    assert (await stage.ask("a")).id == good.id
    assert len(stage.books) == 4
    assert stage.charges() == [3 * 200 + 8 * 600]


async def test_a_refusal_for_lack_of_money_leaves_the_key_free(stage: Stage) -> None:
    await asyncio.to_thread(stage.running.cli, "limits", "set", "user", stage.user, "0")
    assert (await stage.ask("a")).status == 402
    await asyncio.to_thread(stage.running.cli, "limits", "remove", "user", stage.user)
    assert (await stage.ask("a")).status == 200


async def test_an_answer_that_broke_off_is_not_asked_for_again(stage: Stage) -> None:
    """What was delivered was charged, so a repeat is told instead of charged again."""
    stage.provider.script("error_later")
    first = await stage.ask("a", chat(stream=True))
    assert (first.done, first.text) == (False, "alpha bravo")
    for _ in range(2):
        again = await stage.ask("a", chat(stream=True))
        assert (again.status, again.headers["x-should-retry"]) == (502, "false")
        assert again.error is not None
        assert again.error["code"] == "answer_broke_off"
    assert len(stage.books) == 1
    assert len(stage.charges()) == 1


async def test_a_client_that_left_gets_its_answer_with_the_repeat(stage: Stage) -> None:
    caller = Caller(stage.running.base_url, stage.key)
    headers = {"Idempotency-Key": "a"}
    left = await caller.ask(chat(stream=True), headers=headers, drop_at=400)
    assert left.dropped
    await stage.ledger.settled()
    again = await stage.ask("a", chat(stream=True))
    assert (again.done, len(again.text.split()), again.call_id != left.call_id) == (True, 8, True)
    assert again.id == f"chatcmpl-{left.call_id}"
    assert stage.charges() == stage.billed() == [3 * 200 + 8 * 600]


async def test_keys_are_each_user_s_own(stage: Stage) -> None:
    bob = await asyncio.to_thread(stage.running.user, "bob", "pro")
    second = await asyncio.to_thread(stage.running.key, stage.user)
    ann_s = await stage.ask("a")
    bob_s = await stage.ask("a", key=bob)
    assert bob_s.id != ann_s.id
    assert (await stage.ask("a", chat("another"), key=bob)).status == 422
    assert (await stage.ask("a", key=second)).id == ann_s.id  # whichever of her keys she uses
    assert len(stage.charges()) == 1
    assert len(stage.books) == 2


async def test_who_pays_is_part_of_the_request(stage: Stage) -> None:
    def build() -> None:
        stage.running.cli("orgs", "add", "acme", "--tier", "team", "--admin", "owner")
        stage.running.cli("orgs", "members", "add", "acme", stage.user)

    await asyncio.to_thread(build)
    first = await stage.ask("a", bill_to="acme")
    assert first.status == 200
    assert (await stage.ask("a")).status == 422
    assert (await stage.ask("a", bill_to="acme")).id == first.id


@pytest.mark.parametrize("name", ["", "x" * 256, "smörgås", "tab\there"])
async def test_a_key_that_cannot_be_one_is_refused(stage: Stage, name: str) -> None:
    caller = Caller(stage.running.base_url, stage.key)
    refused = await caller.ask(chat(), headers={"Idempotency-Key": name})
    caller.drop()
    assert refused.status == 400
    assert stage.books == []


async def test_answers_outlive_kill_nine_and_unfinished_calls_do_not(tmp_path: Path) -> None:
    async with PlayedProvider() as provider:
        config = CONFIG.format(base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            stage = Stage(provider, running, LedgerFile(running.data_dir), "ann", key)
            first = await stage.ask("answered")
            provider.script(Scene(hang_after=2))
            in_flight = asyncio.create_task(stage.ask("running", chat(stream=True)))
            await stage.hangs()
            running.kill()
            await asyncio.gather(in_flight, return_exceptions=True)
        with appliance(tmp_path / "data", config) as running:
            stage = replace(stage, running=running)
            again = await stage.ask("answered")
            assert (again.id, again.text, is_replayed(again)) == (first.id, first.text, True)
            assert (await stage.ask("running", chat(stream=True))).done
            assert len(provider.books) == 3
            assert stage.charges() == [3 * 200 + 8 * 600] * 2
            stage.ledger.check()


@pytest.mark.timeout(60 + KEYS)
async def test_twenty_duplicates_of_each_key_at_once_are_one_charge_each(stage: Stage) -> None:
    chance = seed_of_run()
    names = [f"key-{number}" for number in range(KEYS)]
    todo = [name for name in names for _ in range(DUPLICATES)]
    chance.shuffle(todo)
    todo.sort(key=lambda name: int(name[4:]) // 4)  # duplicates of a key are near one another
    stage.provider.always = Scene(gap_s=0.002)
    statuses: Counter[int] = Counter()
    ids: dict[str, set[str]] = {name: set() for name in names}

    async def client() -> None:
        caller = Caller(stage.running.base_url, stage.key)
        while todo:
            name = todo.pop(0)
            body = chat(name, stream=int(name[4:]) % 2 == 0)
            heard = await caller.ask(body, headers={"Idempotency-Key": name})
            statuses[heard.status] += 1
            if heard.status == 409:
                todo.insert(chance.randrange(min(len(todo), 40) + 1), name)
            else:
                ids[name].add(heard.id)
        caller.drop()

    await asyncio.gather(*(client() for _ in range(64)))
    assert statuses.keys() <= {200, 409}
    assert statuses[200] == KEYS * DUPLICATES
    assert statuses[409] > 0, "no two duplicates ever met: this proves nothing"
    assert all(len(found) == 1 for found in ids.values())
    prompts = Counter(booked.request["messages"][0]["content"] for booked in stage.books)
    assert prompts == dict.fromkeys(names, 1)
    assert len(stage.charges()) == KEYS
    assert stage.charges() == stage.billed()
    stage.ledger.check()
