"""Promises (I10, I11): a client that leaves and a provider that breaks off, at any byte.

Every call ends once, at what the provider reports or at what was delivered; an answer that broke
off never looks whole. ``TURNPIKE_DISCONNECTS`` sets how many clients leave,
``TURNPIKE_BREAKS`` at how many offsets each kind of break happens, ``TURNPIKE_SEED``
replays a run.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.appliance import RunningAppliance, appliance
from tests.journeys.callers import Caller, Heard, chat, seed_of_run
from tests.journeys.ledger_file import CallRow, LedgerFile
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.rates import Rates
from tests.upstreams.scenes import WORDS, Booked, JsonObject, Scene, UsageMode

DISCONNECTS = int(os.environ.get("TURNPIKE_DISCONNECTS", "1000"))
BREAKS = int(os.environ.get("TURNPIKE_BREAKS", "200"))
RATES = Rates(input=200, output=600)
CONFIG = f"""
[server]
port = 0
drain_seconds_max = 1

[[providers]]
id = "mock"
plugin = "openai_compatible"
base_url = "{{base_url}}"
[[providers.models]]
id = "acme/tiny"
upstream_id = "m"
{RATES.toml().replace("{", "{{").replace("}", "}}")}
"""
PROMPT = "one two three"


@dataclass
class Stage:
    """A provider whose scenes go by the request's tag, and the appliance before it."""

    provider: PlayedProvider
    running: RunningAppliance
    ledger: LedgerFile
    key: str
    scenes: dict[str, Scene]
    others: frozenset[str] = frozenset()  # calls of tests before

    def calls(self) -> dict[str, CallRow]:
        """The test's own calls."""
        found = self.ledger.calls()
        return {call: row for call, row in found.items() if call not in self.others}

    async def ask_all(self, asked: dict[str, tuple[Scene, int | None]]) -> dict[str, Heard]:
        """A stream for each tag, its scene, and where its client leaves; 32 at a time."""
        self.scenes.update((tag, scene) for tag, (scene, _) in asked.items())
        waiting = list(asked.items())
        heard: dict[str, Heard] = {}

        async def client() -> None:
            caller = Caller(self.running.base_url, self.key)
            while waiting:
                tag, (scene, drop_at) = waiting.pop()
                tokens = 6000 if scene.forever else 100
                body = chat(PROMPT, stream=True, user=tag, max_tokens=tokens)
                heard[tag] = await caller.ask(body, drop_at=drop_at)
            caller.drop()

        await asyncio.gather(*(client() for _ in range(32)))
        await self.ledger.settled()
        return heard

    def booked(self, tag: str) -> Booked | None:
        """What the provider wrote down about a request."""
        found = [booked for booked in self.provider.books if booked.request["user"] == tag]
        assert len(found) <= 1
        return found[0] if found else None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    scenes: dict[str, Scene] = {}

    def scene_of(request: JsonObject) -> Scene:
        return scenes[request["user"]]

    async with PlayedProvider(choose=scene_of) as provider:
        data_dir: Path = tmp_path_factory.mktemp("disconnects") / "data"
        with appliance(data_dir, CONFIG.format(base_url=provider.base_url)) as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            yield Stage(provider, running, LedgerFile(data_dir), key, scenes)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(shop: Stage) -> Stage:
    await shop.ledger.settled()
    return replace(shop, others=frozenset(shop.ledger.calls()))


pytestmark = pytest.mark.asyncio(loop_scope="module")


def by_bytes(text: str) -> int:
    """The estimate of an answer whose usage nobody reported: four bytes to a token."""
    return RATES.bill(-(-len(PROMPT) // 4), -(-len(text) // 4))


MODES: list[UsageMode] = ["first", "last", "never"]


@pytest.mark.slow
@pytest.mark.timeout(60 + DISCONNECTS // 5)
async def test_a_client_may_leave_at_any_byte(stage: Stage) -> None:
    chance = seed_of_run()
    asked: dict[str, tuple[Scene, int | None]] = {}
    for number in range(DISCONNECTS):
        mode = chance.choice(MODES)
        scene = Scene(
            name=mode, usage=mode, words=chance.randint(1, 40), gap_s=chance.random() / 400
        )
        asked[f"left{number}"] = (scene, chance.randrange(8000))
    heard = await stage.ask_all(asked)
    calls = stage.calls()
    left = 0
    for tag, answer in heard.items():
        if answer.call_id:
            row, booked, scene = calls[answer.call_id], stage.booked(tag), asked[tag][0]
            left += row.outcome == "client_left"
            assert booked is not None  # headers come with the first byte of the answer
            assert booked.finished  # an answer of this length is read to its end
            check_whole(row, booked, scene, dropped=answer.dropped)
    assert left > DISCONNECTS // 10, "hardly a client left: this proves little"
    known = {answer.call_id for answer in heard.values()}
    for row in calls.values():
        if row.call_id not in known:  # nobody knows which request it was
            assert row.outcome in ("client_left", "completed")
            assert row.cost == 0 or row.cost >= RATES.bill(3, 1)
    sent = sum(booked.request["user"] in asked for booked in stage.provider.books)
    assert sum(row.cost > 0 for row in calls.values()) >= sent
    assert stage.ledger.check()["overrun"] == 0


def check_whole(row: CallRow, booked: Booked, scene: Scene, *, dropped: bool) -> None:
    """A call whose provider came to its end."""
    assert row.outcome in (("client_left", "completed") if dropped else ("completed",))
    assert row.state == "settled"
    if scene.usage == "never":
        assert row.estimated
        assert row.cost == by_bytes(" ".join(islice(cycle(WORDS), scene.words)))
    else:
        assert (row.cost, row.estimated) == (booked.bill(RATES), 0)


async def test_a_provider_that_goes_on_and_on_is_left(stage: Stage) -> None:
    """Of its endless answer no more is charged than the hold, and than it has sent."""
    chance = seed_of_run()
    endless = Scene(name="endless", forever=True, gap_s=0.0001)
    asked: dict[str, tuple[Scene, int | None]] = {
        f"endless{number}": (endless, chance.randrange(400, 4000)) for number in range(12)
    }
    heard = await stage.ask_all(asked)
    calls = stage.calls()
    for tag, answer in heard.items():
        row, booked = calls[answer.call_id], stage.booked(tag)
        assert booked is not None
        assert (row.outcome, row.estimated) == ("client_left", 1)
        pieces = row.output_tokens
        assert 0 < pieces <= min(booked.completion_tokens, 6000 * 2 + 65)
        assert row.cost == RATES.bill(len(PROMPT) // 4 + 1, pieces)
        assert not booked.finished
    assert stage.ledger.check()["overrun"] == 0


BREAKING: dict[str, Any] = {
    "reset": lambda at: {"reset_after": at},
    "closed": lambda at: {"close_after": at},
    "garbage": lambda at: {"garbage_after": at},
    "error event": lambda at: {"error_after": at // 200},
}


@pytest.mark.slow
@pytest.mark.timeout(90 + BREAKS)
@pytest.mark.parametrize("kind", BREAKING)
async def test_an_answer_that_breaks_off_never_looks_whole(stage: Stage, kind: str) -> None:
    chance = seed_of_run()
    asked: dict[str, tuple[Scene, int | None]] = {}
    for number in range(BREAKS):
        mode = chance.choice(MODES)
        at = chance.randrange(5200)
        scene = Scene(name=mode, usage=mode, words=24, **BREAKING[kind](at))
        asked[f"{kind}{number}"] = (scene, None)
    heard = await stage.ask_all(asked)
    calls = stage.calls()
    broke = 0
    for tag, answer in heard.items():
        row, booked, scene = calls[answer.call_id], stage.booked(tag), asked[tag][0]
        assert booked is not None
        if answer.status == 200 and answer.done:
            check_whole(row, booked, scene, dropped=False)
            continue
        broke += 1
        error = answer.error
        assert error is not None
        assert error["code"] == "upstream_unavailable"
        assert not answer.done
        text = answer.text if answer.status == 200 else ""
        if not text:  # nothing reached the client
            assert (row.outcome, row.state, row.cost) == ("failed", "void", 0)
            continue
        assert (row.outcome, row.state) == ("failed_partial", "settled")
        reported = not row.estimated
        if scene.usage != "last":  # which may have come just before the break
            assert reported == (scene.usage == "first")
        assert row.cost == (booked.bill(RATES) if reported else by_bytes(text))
    assert broke > BREAKS // 2
    assert stage.ledger.check()["overrun"] == 0
