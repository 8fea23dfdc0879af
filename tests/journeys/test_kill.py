"""Promise (B1, I4, I13): ``kill -9`` at any point of a call loses no acknowledged settlement, makes
none twice and leaves no hold without an owner; a duplicate after the crash is charged once.

``TURNPIKE_KILLS`` sets how many times the server is killed under load (60 for the long run),
``TURNPIKE_CRASH_POINTS`` at how many writes of one call (all of them: 1000), ``TURNPIKE_SEED``
replays a run.
"""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance
from tests.journeys.callers import Caller, Heard, chat, seed_of_run
from tests.journeys.ledger_file import LedgerFile
from tests.journeys.market import MODELS, RATES, Errand, Market, open_market
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

KILLS = int(os.environ.get("TURNPIKE_KILLS", "10"))
CRASH_POINTS = int(os.environ.get("TURNPIKE_CRASH_POINTS", "8"))
CLIENTS = 16
COST = 3 * 200 + 8 * 600
GONE = (OSError, EOFError)

HELD_BY_PROVIDER = {
    "sent": (Scene(wait_s=1000.0), False),
    "sent for a stream": (Scene(wait_s=1000.0), True),
    "headers came": (Scene(hang_at="head"), True),
    "headers of a whole answer came": (Scene(hang_at="head"), False),
    "mid-stream": (Scene(hang_after=4), True),
    "mid-answer": (Scene(hang_after=4), False),
    "last byte of a stream": (Scene(hang_at="end"), True),
    "but one byte of an answer": (Scene(hang_at="end"), False),
}


async def asking(running: RunningAppliance, key: str, name: str, *, stream: bool) -> Heard:
    """One call, its name being both prompt and Idempotency-Key."""
    caller = Caller(running.base_url, key)
    try:
        body = chat(f"one two {name.replace(' ', '_')}", stream=stream)
        return await caller.ask(body, headers={"Idempotency-Key": name})
    finally:
        caller.drop()


def has_met(provider: PlayedProvider, calls: int) -> bool:
    return len(provider.books) == calls


async def test_killed_while_the_provider_works(tmp_path: Path) -> None:
    """Eight calls, each at another point of its way, and one kill for all."""
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            calls = []
            for name, (scene, stream) in HELD_BY_PROVIDER.items():
                provider.script(scene)
                calls.append(asyncio.create_task(asking(running, key, name, stream=stream)))
                met = len(calls)
                await provider.wait_until(partial(has_met, provider, met))
            hang = sum(not scene.wait_s for scene, _ in HELD_BY_PROVIDER.values())
            await provider.wait_until(lambda: sum(b.hanging for b in provider.books) == hang)
            ledger = LedgerFile(running.data_dir)
            assert ledger.open_holds() == len(HELD_BY_PROVIDER)
            running.kill()
            for ended in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(ended, GONE)
        with appliance(tmp_path / "data", config) as running:
            assert ledger.open_holds() == 0
            killed = ledger.calls()
            assert [row.outcome for row in killed.values()] == ["killed"] * len(HELD_BY_PROVIDER)
            assert sum(row.cost for row in killed.values()) == 0
            for name, (_, stream) in HELD_BY_PROVIDER.items():
                for _ in range(2):
                    assert (await asking(running, key, name, stream=stream)).status == 200
            rows = [row for call, row in ledger.calls().items() if call not in killed]
            assert [row.cost for row in rows] == [COST] * len(HELD_BY_PROVIDER)
            assert ledger.check()["forgiven"] == 0


async def test_killed_after_the_commit_and_before_the_client_heard(tmp_path: Path) -> None:
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            ledger = LedgerFile(running.data_dir)
            call = asyncio.create_task(asking(running, key, "committed", stream=False))
            async with asyncio.timeout(20):
                while not ledger.ask("SELECT 1 FROM settlements"):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            running.kill()
            await asyncio.gather(call, return_exceptions=True)
        with appliance(tmp_path / "data", config) as running:
            again = await asking(running, key, "committed", stream=False)
            assert again.headers["idempotency-replayed"] == "true"
            assert [row.cost for row in ledger.calls().values()] == [COST]
            assert len(provider.books) == 1
            ledger.check()


@asynccontextmanager
async def killer(running: RunningAppliance, syscall: str, nth: int) -> AsyncIterator[None]:
    """Within: the server dies on entering its nth write or sync of the write-ahead log."""
    wal = str(running.data_dir / "turnpike.db-wal")
    process = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-p", str(running.process.pid), "-P", wal, "-o", os.devnull),
        *("-e", f"inject={syscall}:signal=KILL:when={nth}", "-e", f"trace={syscall}"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"attached" not in (line := await process.stderr.readline()):
                assert b"Requested path" in line or not line.strip(), line.decode()
                assert line, "strace ended"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # asked politely, it would wait for what it has killed
        await process.communicate()


def can_trace() -> bool:
    """Whether strace is here and may look at a process of ours."""
    if shutil.which("strace") is None:
        return False
    with subprocess.Popen(["sleep", "5"]) as child:
        asked = ["strace", "-o", os.devnull, "-p", str(child.pid)]
        tracing = subprocess.Popen(asked, stderr=subprocess.PIPE, text=True)
        assert tracing.stderr is not None
        able = "attached" in tracing.stderr.readline()
        tracing.terminate()
        tracing.communicate()
        child.kill()
    return able


@pytest.mark.slow
@pytest.mark.timeout(120 + 15 * CRASH_POINTS)
@pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to attach it")
async def test_killed_at_the_nth_write_of_a_call(tmp_path: Path) -> None:
    """In the COMMITs of hold and settlement, at their first write, last sync and between."""
    chance = seed_of_run()
    # The first and the last two tell whether the kills come where they should: at once, at a sync,
    # and after the last write of a call.
    points = [("pwrite64", 1), ("fdatasync", 1), ("fdatasync", 2), ("pwrite64", 120)]
    between = [("pwrite64", n) for n in range(2, 90)] + [("fdatasync", n) for n in range(3, 5)]
    points += chance.sample(between, min(max(CRASH_POINTS - len(points), 1), len(between)))
    found: Counter[str] = Counter()
    async with PlayedProvider() as provider:
        config = MOCK_PROVIDER.format(base_url=provider.base_url)
        key = ""
        for number, (syscall, nth) in enumerate(points):
            name, stream = f"call {number}", bool(number % 2)
            with appliance(tmp_path / "data", config) as running:
                key = key or await asyncio.to_thread(running.user, "ann", "pro")
                ledger = LedgerFile(running.data_dir)
                before = ledger.calls()
                sent = len(provider.books)
                async with killer(running, syscall, nth):
                    try:
                        heard = await asking(running, key, name, stream=stream)
                    except GONE:
                        heard = Heard()
                if heard.status == 0:
                    assert running.process.wait(10) == -9
            with appliance(tmp_path / "data", config) as running:
                assert ledger.open_holds() == 0
                after = [row for call, row in ledger.calls().items() if call not in before]
                outcomes = [row.outcome for row in after]
                found[" ".join(outcomes) or "nothing"] += 1
                # Acknowledged: it is there. Not acknowledged: all of it is there, or nothing.
                whole = heard.status == 200 and (not stream or heard.done)
                assert outcomes == ["completed"] if whole else len(outcomes) <= 1, (syscall, nth)
                assert sum(r.cost for r in after) == (COST if outcomes == ["completed"] else 0)
                if not outcomes:
                    assert len(provider.books) == sent, "sent without a hold"
                assert (await asking(running, key, name, stream=stream)).status == 200
                after = [row for call, row in ledger.calls().items() if call not in before]
                assert sum(row.cost for row in after) == COST
                ledger.check()
    print(dict(found))
    assert {"nothing", "completed"} <= found.keys()


class Crowd:
    """Clients that go on over the server's deaths. Bob's requests have keys, and he repeats each
    until he has its answer; Ann takes what comes."""

    def __init__(self, market: Market, chance: random.Random) -> None:
        self.market = market
        self.chance = chance
        self.acknowledged: dict[str, str] = {}  # tag by call
        self.bobs = 0
        self._waiting: list[tuple[str, Errand]] = []

    def _next(self) -> tuple[str, Errand]:
        if self._waiting:
            return self._waiting.pop()
        chance = self.chance
        tag = f"t{len(self.market.todo)}"
        fails = "before" if chance.random() < 0.2 else ""
        errand = Errand(
            tag, chance.choice(MODELS), chance.random() < 0.5, chance.randint(1, 9), fails
        )
        self.market.todo[tag] = errand
        who = chance.choice(("ann", "bob"))
        self.bobs += who == "bob"
        return who, errand

    async def load(self, base_url: str, keys: dict[str, str], *, until_done: bool = False) -> None:
        """Call until the server is gone, or until nothing of Bob's is left."""
        callers = {who: Caller(base_url, key) for who, key in keys.items()}
        try:
            while self._waiting or not until_done:
                await self._run_errand(callers)
        except GONE:
            pass
        finally:
            for caller in callers.values():
                caller.drop()

    async def _run_errand(self, callers: dict[str, Caller]) -> None:
        who, errand = self._next()
        headers = {"Idempotency-Key": errand.tag} if who == "bob" else {}
        try:
            heard = await callers[who].ask(errand.body(), headers=headers)
        except GONE:
            if who == "bob":
                self._waiting.append((who, errand))
            raise
        if heard.status in (502, 503):  # the retry budget was used up: nothing was charged
            self._waiting.append((who, errand))
            return
        assert heard.status == 200, heard.body
        assert not errand.stream or heard.done
        self.acknowledged[heard.id.removeprefix("chatcmpl-")] = errand.tag

    def check(self, ledger: LedgerFile) -> None:
        """What the file says against what clients heard and providers wrote down."""
        calls = ledger.calls()
        bills: Counter[tuple[str, str, int]] = Counter()
        by_tag: dict[str, set[int]] = {}
        for name, provider in (("flaky", self.market.flaky), ("steady", self.market.steady)):
            for booked in provider.books:
                if booked.finished and booked.completion_tokens:
                    bill = booked.bill(RATES[name][booked.model])
                    bills[name, booked.model, bill] += 1
                    by_tag.setdefault(booked.request["user"], set()).add(bill)
        for call_id, tag in self.acknowledged.items():
            assert calls[call_id].cost in by_tag[tag]
        charged = Counter((row.provider, row.model, row.cost) for row in calls.values() if row.cost)
        assert not charged - bills, "something was charged that no provider delivered"
        bob = ledger.id_of("users", "bob")
        assert sum(row.user_id == bob and row.cost > 0 for row in calls.values()) == self.bobs
        assert ledger.open_holds() == 0
        ledger.check()


@pytest.mark.slow
@pytest.mark.timeout(120 + 20 * KILLS)
async def test_kill_nine_at_random_moments_under_load(tmp_path: Path) -> None:
    chance = seed_of_run()
    data_dir = tmp_path / "data"
    ready_s: list[float] = []
    keys: dict[str, str] = {}
    async with open_market() as market:
        crowd = Crowd(market, chance)
        for _ in range(KILLS):
            started = time.monotonic()
            with await asyncio.to_thread(lambda: appliance(data_dir, market.toml())) as running:
                ready_s.append(time.monotonic() - started)
                for who in ("ann", "bob"):
                    if who not in keys:
                        keys[who] = await asyncio.to_thread(running.user, who, "pro")
                loads = [crowd.load(running.base_url, keys) for _ in range(CLIENTS)]
                tasks = [asyncio.create_task(load) for load in loads]
                await asyncio.sleep(chance.uniform(0.05, 0.8))
                running.kill()
                await asyncio.gather(*tasks)
        with appliance(data_dir, market.toml()) as running:
            await asyncio.gather(
                *(crowd.load(running.base_url, keys, until_done=True) for _ in range(4))
            )
            crowd.check(LedgerFile(data_dir))
            assert running.stop() == 0
    assert len(crowd.acknowledged) > KILLS
    killed = sum(row.outcome == "killed" for row in LedgerFile(data_dir).calls().values())
    print(f"ready after {max(ready_s):.1f} s at most; {len(crowd.acknowledged)} answers;", end=" ")
    print(f"{killed} calls were under way when the server died")
    assert killed > 0, "the kills never hit a call: they prove nothing"
