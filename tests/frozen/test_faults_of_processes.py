"""Rows of the fault matrix, at the binary: processes that are killed, stopped, or crowded out.

``TURNPIKE_KILLS`` sets how many times the server is killed under load, ``TURNPIKE_SEED`` replays a
run.
"""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.appliance import RunningAppliance, appliance
from tests.frozen.faulty import (
    FAKE_MODEL,
    alive,
    all_end,
    ask,
    books_agree,
    children,
    config_for,
    run,
)
from tests.journeys.callers import Caller, Heard, chat, seed_of_run
from tests.journeys.ledger_file import LedgerFile
from tests.journeys.market import open_market
from tests.journeys.test_kill import Crowd
from tests.local_runtime.calls import smollm_path
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

KILLS = int(os.environ.get("TURNPIKE_KILLS", "5"))
CLIENTS = 16
READY_S_MAX = 8.0  # the bar is 3 s on a machine that does nothing else
LOCAL = "soak/local"
pytestmark = pytest.mark.slow


@pytest.mark.timeout(60 + 15 * KILLS)
async def test_killed_under_load_nothing_acknowledged_is_lost(folder: Path, tmp_path: Path) -> None:
    chance = seed_of_run()
    data_dir, program = tmp_path / "data", folder / "turnpike"
    ready_s: list[float] = []
    keys: dict[str, str] = {}
    async with open_market() as market:
        crowd = Crowd(market, chance)
        config = market.toml() + FAKE_MODEL
        for _ in range(KILLS):
            started = time.monotonic()
            with await asyncio.to_thread(
                lambda: appliance(data_dir, config, program=program)
            ) as running:
                ready_s.append(time.monotonic() - started)
                for who in ("ann", "bob"):
                    if who not in keys:
                        keys[who] = await asyncio.to_thread(running.user, who, "pro")
                loads = [crowd.load(running.base_url, keys) for _ in range(CLIENTS)]
                tasks = [asyncio.create_task(load) for load in loads]
                await asyncio.sleep(chance.uniform(0.2, 0.8))
                engines = children(running.process.pid)
                running.kill()
                await asyncio.gather(*tasks)
            assert engines, "the engine had a process of its own"
            await all_end(engines)
        with appliance(data_dir, config, program=program) as running:
            await asyncio.gather(
                *(crowd.load(running.base_url, keys, until_done=True) for _ in range(4))
            )
            crowd.check(LedgerFile(data_dir))
            assert json.loads(running.cli("ledger", "audit", "--json"))["problems"] == []
            assert running.stop() == 0
    killed = sum(row.outcome == "killed" for row in LedgerFile(data_dir).calls().values())
    print(f"ready after {max(ready_s):.1f} s at most; {len(crowd.acknowledged)} answers;", end=" ")
    print(f"{killed} calls were under way when the server died")
    assert killed > 0, "the kills never hit a call: they prove nothing"
    assert len(crowd.acknowledged) > KILLS
    assert max(ready_s) < READY_S_MAX


def starter() -> str:
    """A file with a small model that computes for real."""
    return f"""
[[local.models]]
id = "{LOCAL}"
source = "file:{smollm_path()}"
context_length = 2048
threads = 1
"""


async def stream_and_kill_engine(running: RunningAppliance, key: str) -> Heard:
    """A long answer whose engine dies once it has begun; what its client heard."""
    (engine,) = children(running.process.pid)
    caller = Caller(running.base_url, key)
    body = chat("Count to a thousand.", model=LOCAL, stream=True, max_tokens=1500, ignore_eos=True)
    answer = asyncio.create_task(caller.ask(body))
    async with asyncio.timeout(60):
        while not _metric(running, "turnpike_local_sequences_running"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    os.kill(engine, signal.SIGKILL)
    heard = await answer
    caller.drop()
    assert not alive(engine)
    return heard


def _metric(running: RunningAppliance, name: str) -> float:
    lines = ask(running, "/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


async def test_an_engine_that_is_killed_comes_back_until_it_dies_too_often(
    folder: Path, tmp_path: Path
) -> None:
    with appliance(tmp_path / "data", starter(), program=folder / "turnpike") as running:
        key = await asyncio.to_thread(running.user, "ann", "pro")
        first = await asyncio.to_thread(running.chat, key, LOCAL, max_tokens=4)
        assert first.status_code == 200
        for crash in range(3):
            heard = await stream_and_kill_engine(running, key)
            assert heard.status == 200
            assert not heard.done
            assert heard.error is not None
            assert heard.error["code"] == "engine_crashed"
            if crash < 2:
                again = await asyncio.to_thread(running.chat, key, LOCAL, max_tokens=4)
                assert again.status_code == 200, again.text
        # The third within five minutes was the last.
        async with asyncio.timeout(10):
            while "failed" not in running.cli("models", "ps", "--json"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        again = await asyncio.to_thread(running.chat, key, LOCAL, max_tokens=4)
        error = again.json()["error"]
        assert again.status_code == 502, again.text
        assert "out of service" in error["message"]
        assert error["request_id"] == again.headers["inference-id"]
        assert children(running.process.pid) == []
        assert ask(running, "/livez").status_code == 200
        ledger = LedgerFile(running.data_dir)
        await ledger.settled()
        broken = [row for row in ledger.calls().values() if row.outcome == "failed_partial"]
        assert len(broken) == 3
        ledger.check()
        running.cli("models", "load", LOCAL)
        async with asyncio.timeout(30):
            again = await asyncio.to_thread(running.chat, key, LOCAL, max_tokens=4)
            while again.is_error:
                await asyncio.sleep(0.2)
                again = await asyncio.to_thread(running.chat, key, LOCAL, max_tokens=4)
        assert running.stop() == 0


async def test_a_server_that_stood_still_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    async with PlayedProvider(always=Scene(words=20, gap_s=0.1)) as provider:
        config = config_for(provider)
        with appliance(tmp_path / "data", config, program=folder / "turnpike") as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            caller = Caller(running.base_url, key)
            body = chat("one two three", stream=True)
            call = asyncio.create_task(caller.ask(body))
            await provider.wait_until(lambda: len(provider.books) == 1)
            os.kill(running.process.pid, signal.SIGSTOP)
            try:
                with pytest.raises(httpx.TimeoutException):
                    await asyncio.to_thread(
                        httpx.get, f"{running.base_url}/livez", timeout=1.0, trust_env=False
                    )
                await asyncio.sleep(2.0)
            finally:
                os.kill(running.process.pid, signal.SIGCONT)
            assert (await asyncio.to_thread(ask, running, "/livez")).status_code == 200
            assert (await asyncio.to_thread(ask, running, "/readyz")).status_code == 200
            heard = await call
            assert heard.done
            caller.drop()
            books_agree(running, provider)
            lag = ask(running, "/metrics").text
            late = [line for line in lag.splitlines() if "loop_lag_seconds_count" in line]
            assert float(late[0].split()[-1]) >= 1
            assert running.stop() == 0


def test_memory_runs_out_for_the_engine_before_the_server(folder: Path, tmp_path: Path) -> None:
    with appliance(tmp_path / "data", FAKE_MODEL, program=folder / "turnpike") as running:
        (engine,) = children(running.process.pid)
        give_up_at = time.monotonic() + 20
        while _oom_score(engine) <= _oom_score(running.process.pid):  # it is being started
            assert time.monotonic() < give_up_at
            time.sleep(0.1)


def _oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_a_second_server_on_the_directory_is_refused(folder: Path, tmp_path: Path) -> None:
    program = folder / "turnpike"
    with appliance(tmp_path / "data", FAKE_MODEL, program=program) as running:
        second = run(program, "--data-dir", str(running.data_dir), "serve")
        assert second.returncode == 1
        assert str(running.process.pid) in second.stderr
        assert ask(running, "/readyz").status_code == 200
