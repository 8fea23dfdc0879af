"""Promise: an engine that wants more memory than it may have takes nobody along. The call on it
ends with an error that says what to do, the model is started anew, the server and its other models
go on, the books add up, and the operator is told everywhere they would look.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import RunningAppliance, appliance, cli
from tests.journeys.test_metrics import scrape

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")
CONFIG = """
[local]
process_bytes_max = 200_000_000
[[local.models]]
id = "acme/hungry"
source = "fake:grab_on=MORE,crash_after_tokens=3,tokens_per_second=50"
[[local.models]]
id = "acme/modest"
source = "fake:"
"""


def streamed(running: RunningAppliance, key: str, text: str) -> list[dict[str, Any]]:
    """The events of one streamed call."""
    body = {
        "model": "acme/hungry",
        "messages": [{"role": "user", "content": text}],
        "stream": True,
    }
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{running.base_url}/v1/chat/completions"
    found = []
    with httpx.stream("POST", url, json=body, headers=headers, timeout=30, trust_env=False) as got:
        assert got.status_code == 200
        for line in got.iter_lines():
            if line.startswith("data: {"):
                found.append(json.loads(line.removeprefix("data: ")))
    return found


def models(running: RunningAppliance) -> dict[str, Any]:
    said = json.loads(running.cli("models", "ps", "--json"))
    return {line["model"]: line for line in said["data"]}


def doctor(running: RunningAppliance) -> dict[str, dict[str, Any]]:
    """What it finds about the server, by code."""
    try:
        said = cli(running.data_dir, "doctor", "--offline", "--json", config=running.config_path)
    except AssertionError as error:  # it ends with status 1 where there is a problem
        raise AssertionError("a model out of memory is a warning, not a problem") from error
    return {each["code"]: each for each in json.loads(said)["findings"]}


def alive(pid: int) -> bool:
    """Whether it runs; one that ended and that nobody has asked for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group of this test's own with 400 MB, for real; it takes root to make one."""
    older, newer = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    parent, limit = (older, "memory.limit_in_bytes") if older.is_dir() else (newer, "memory.max")
    group = parent / f"turnpike-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group can be made here")
    try:
        try:
            (group / limit).write_text("400000000")
        except OSError:
            pytest.skip("the memory of a control group cannot be bounded here")
        yield group
    finally:
        for _ in range(100):
            try:
                group.rmdir()
                break
            except OSError:  # its last process is on its way out
                time.sleep(0.05)


async def test_the_kernel_ends_the_engine_and_not_the_server(
    tmp_path: Path, little_memory: Path
) -> None:
    """Without a bound of its own the engine takes all that the machine has."""

    def inside(*command: str) -> list[str]:
        enter = f'echo $$ >"{little_memory}/cgroup.procs"; exec "$@"'
        return ["sh", "-c", enter, "sh", *command]

    config = CONFIG.replace("200_000_000", '"off"\nmemory_bytes_max = 100')
    with appliance(tmp_path / "data", config, inside=inside) as running:
        key = await asyncio.to_thread(running.user, "ann", "pro")
        answer = await asyncio.to_thread(running.chat, key, "acme/hungry", "a b c d MORE")
        assert answer.status_code == 502
        assert "ran out of memory" in answer.json()["error"]["message"]
        assert (await asyncio.to_thread(running.chat, key, "acme/hungry", "calm")).is_success
        assert running.process.poll() is None
        found = await asyncio.to_thread(models, running)
        assert found["acme/hungry"]["out_of_memory"] == 1
        assert running.stop() == 0
    log = (tmp_path / "data" / "serve.log").read_text()
    assert "the kernel ended it because memory ran out" in log
    assert "lower local.memory_bytes_max" in log


async def test_engines_do_not_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    """By the parent-death signal, also in the middle of an answer; and the next start serves."""
    with appliance(tmp_path / "data", CONFIG) as running:
        key = await asyncio.to_thread(running.user, "ann", "pro")
        for name in ("acme/hungry", "acme/modest"):
            assert (await asyncio.to_thread(running.chat, key, name, "hi")).status_code == 200
        pids = [line["pid"] for line in (await asyncio.to_thread(models, running)).values()]
        assert all(map(alive, pids))
        long = " ".join(["word"] * 200)
        call = asyncio.create_task(asyncio.to_thread(running.chat, key, "acme/hungry", long))
        await asyncio.sleep(0.5)
        running.kill()
        async with asyncio.timeout(5):
            while any(map(alive, pids)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(httpx.TransportError):
            await call
    with appliance(tmp_path / "data", CONFIG) as running:
        answer = await asyncio.to_thread(running.chat, key, "acme/modest", "hi")
        assert answer.status_code == 200


async def test_an_engine_that_gets_no_more_memory(tmp_path: Path) -> None:
    with appliance(tmp_path / "data", CONFIG) as running:

        def story() -> str:
            key = running.user("ann", "pro")
            events = streamed(running, key, "one two three four MORE")
            assert "".join(
                each["choices"][0]["delta"].get("content", "")
                for each in events
                if each.get("choices")
            ).startswith("echo: one")
            error = events[-1]["error"]
            assert error["code"] == "engine_crashed"
            assert "ran out of memory" in error["message"]
            assert "shorter prompt" in error["message"]

            refused = running.chat(key, "acme/hungry", "one two three four MORE")
            assert refused.status_code == 502
            assert "ran out of memory" in refused.json()["error"]["message"]

            assert running.chat(key, "acme/hungry", "calm").status_code == 200, "started anew"
            assert running.chat(key, "acme/modest", "MORE").status_code == 200, "not its concern"
            assert running.process.poll() is None
            found = models(running)
            assert found["acme/hungry"]["out_of_memory"] == 2
            assert found["acme/hungry"]["state"] == "warm"
            assert found["acme/modest"]["crashes"] == 0
            assert "server.model_out_of_memory" in doctor(running)
            return key

        key = await asyncio.to_thread(story)
        told = await scrape(running)
        assert told.of("local_out_of_memory_total", model="acme/hungry") == 2
        assert told.of("local_out_of_memory_total", model="acme/modest") == 0
        log = (tmp_path / "data" / "serve.log").read_text()
        assert "wanted more than the 191 MiB" in log and "process_bytes_max" in log

        # The third within five minutes is the last; the reason stays where operators look.
        last = await asyncio.to_thread(running.chat, key, "acme/hungry", "a b c d MORE")
        assert last.status_code == 502
        async with asyncio.timeout(20):
            failed = {"model": "acme/hungry", "state": "failed"}
            while (await scrape(running)).of("local_state", failed) != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        shown = await asyncio.to_thread(models, running)
        assert "191 MiB" in shown["acme/hungry"]["error"]
        answer = await asyncio.to_thread(running.chat, key, "acme/modest", "still here")
        assert answer.status_code == 200
        assert running.stop() == 0
        await asyncio.to_thread(running.cli, "ledger", "audit")
