"""Promises: a model that is here is served without a network; one that is not is absent, and served
as soon as somebody brought it."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import RunningAppliance, appliance, cli
from tests.local_runtime.calls import smollm_path
from tests.upstreams.hub import PlayedHub, Repo

ROOT = Path(__file__).resolve().parents[2]
REPO = "acme/smol-GGUF"
MODEL = f"""
[local.hub]
endpoint = "{{endpoint}}"
[[local.models]]
id = "acme/smol"
source = "hf:{REPO}:Q4_1"
context_length = 512
"""
NOWHERE = "http://192.0.2.1:9"  # TEST-NET-1: nobody answers there

# Runs the program with every connection but those to this machine denied, and noted.
DENYING = """
import runpy, sys
def watch(event, args):
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if host not in (None, "127.0.0.1", "::1", "localhost", b"127.0.0.1"):
        with open({log!r}, "a") as log:
            log.write(f"{{event}} {{host}}\\n")
        raise OSError(f"{{host}} is outside of this machine")
sys.addaudithook(watch)
runpy.run_module("app", run_name="__main__", alter_sys=True)
"""


def model_file() -> dict[str, bytes]:
    return {"smol-Q4_1.gguf": smollm_path().read_bytes()}


def states(running: RunningAppliance) -> dict[str, str]:
    """By model, as the metrics say."""
    text = httpx.get(f"{running.base_url}/metrics", trust_env=False, timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith("turnpike_local_state{")]
    found = [line for line in lines if line.endswith(" 1.0")]
    return {line.split('"')[1]: line.split('"')[3] for line in found}


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < give_up
        await asyncio.sleep(0.1)


def answers(running: RunningAppliance, key: str) -> bool:
    reply = running.chat(key, "acme/smol", max_tokens=3)
    return reply.status_code == 200


@asynccontextmanager
async def served(data_dir: Path, config: str, **how: Any) -> AsyncIterator[RunningAppliance]:
    """A real server, started and ended without stopping the played Hub in this loop."""
    context = appliance(data_dir, config, **how)
    running = await asyncio.to_thread(context.__enter__)
    try:
        yield running
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@pytest.mark.slow
async def test_an_absent_model_is_served_once_it_was_pulled(tmp_path: Path) -> None:
    async with PlayedHub({REPO: Repo(model_file())}) as hub:
        config = MODEL.format(endpoint=hub.endpoint)
        async with served(tmp_path / "data", config) as running:
            assert await asyncio.to_thread(states, running) == {"acme/smol": "absent"}
            log = (tmp_path / "data" / "serve.log").read_text()
            assert f"turnpike models pull hf:{REPO}:Q4_1" in log
            assert hub.asked == []  # nobody said that it is to be pulled
            key = await asyncio.to_thread(running.key)
            refused = await asyncio.to_thread(running.chat, key, "acme/smol")
            assert refused.status_code in {404, 503}
            said = await asyncio.to_thread(running.cli, "models", "pull", f"hf:{REPO}:Q4_1")
            assert "acme/smol-GGUF:Q4_1 is here" in said
            await until(lambda: states(running).get("acme/smol") == "warm")
            assert await asyncio.to_thread(answers, running, key)


@pytest.mark.slow
async def test_pulled_at_the_first_start_and_never_again(tmp_path: Path) -> None:
    async with PlayedHub({REPO: Repo(model_file())}) as hub:
        config = MODEL.format(endpoint=hub.endpoint) + "pull = true\n"
        async with served(tmp_path / "data", config) as running:
            await until(lambda: states(running).get("acme/smol") == "warm")
            key = await asyncio.to_thread(running.key)
            assert await asyncio.to_thread(answers, running, key)
        asked = len(hub.asked)
        assert asked > 0
        async with served(tmp_path / "data", config) as running:
            await until(lambda: states(running).get("acme/smol") == "warm")
            assert await asyncio.to_thread(answers, running, key)
        assert len(hub.asked) == asked
        # The addresses of files are signed there: they are in no log.
        log = (tmp_path / "data" / "serve.log").read_text()
        assert "/cdn/" not in log and "acme/smol has arrived" in log


@pytest.mark.slow
async def test_a_model_that_is_here_needs_no_network(tmp_path: Path) -> None:
    """Any connection to elsewhere is denied, and noted: there is none, at start or while it
    answers, although the configuration says that the model may be pulled."""
    log = tmp_path / "denied.log"
    (tmp_path / "denying.py").write_text(DENYING.format(log=str(log)))
    data_dir = tmp_path / "data"
    await asyncio.to_thread(
        cli, data_dir, "models", "import", str(smollm_path()), "--name", f"{REPO}:Q4_1"
    )
    config = MODEL.format(endpoint=NOWHERE) + "pull = true\n"
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    how = {"program": "denying", "env": {"PYTHONPATH": paths, "HF_TOKEN": "hf_planted"}}
    async with served(data_dir, config, **how) as running:
        await until(lambda: states(running).get("acme/smol") == "warm")
        key = await asyncio.to_thread(running.key)
        assert await asyncio.to_thread(answers, running, key)
    assert not log.exists()
    # And what is denied would have been noted.
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "denying", "--config", str(data_dir / "config.toml"),
         "--data-dir", str(data_dir), "models", "pull", "hf:acme/other"],
        env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1 and "cannot be reached" in ran.stderr
    assert " 192.0.2.1" in log.read_text()


@pytest.mark.slow
async def test_without_a_network_the_rest_is_served(tmp_path: Path) -> None:
    """A model that cannot be pulled stands in nobody's way, and says why it is not there."""
    config = MODEL.format(endpoint="http://127.0.0.1:9") + "pull = true\n"
    config += '[[local.models]]\nid = "acme/fake"\nsource = "fake:"\n'
    config += 'engine = "fake"\n'
    async with served(tmp_path / "data", config) as running:
        key = await asyncio.to_thread(running.key)
        assert (await asyncio.to_thread(running.chat, key, "acme/fake")).status_code == 200
        await until(lambda: "cannot be reached" in (tmp_path / "data" / "serve.log").read_text())
        assert (await asyncio.to_thread(states, running))["acme/smol"] == "absent"
        assert await asyncio.to_thread(running.stop) == 0
