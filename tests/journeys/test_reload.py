"""A new configuration while calls run: nothing is dropped, and a mistake changes nothing."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliance import RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

PROVIDER = """
[[providers]]
id = "{id}"
plugin = "openai_compatible"
base_url = "{url}"
probe = false
[[providers.models]]
id = "{model}"
price = {{ input = "0.20", output = "0.60" }}
"""


def rewrite(running: RunningAppliance, *providers: str, more: str = "") -> None:
    text = f"[server]\nport = 0\n{more}" + "".join(providers)
    running.config_path.write_text(text)


def ask(running: RunningAppliance, key: str, model: str, **more: Any) -> httpx.Response:
    return running.chat(key, model, "hi", **more)


async def test_calls_that_run_keep_their_provider_and_new_ones_see_the_new_file(
    tmp_path: Path,
) -> None:
    async with PlayedProvider(always=Scene(words=40, gap_s=0.05)) as old, PlayedProvider() as new:
        first = PROVIDER.format(id="old", url=old.base_url, model="acme/one")
        second = PROVIDER.format(id="new", url=new.base_url, model="acme/two")
        with appliance(tmp_path / "data", first) as running:
            key = await asyncio.to_thread(running.key)
            body = {
                "model": "acme/one",
                "stream": True,
                "messages": [{"role": "user", "content": "hi"}],
            }
            url = f"{running.base_url}/v1/chat/completions"
            headers = {"Authorization": f"Bearer {key}"}
            async with (
                httpx.AsyncClient(trust_env=False, timeout=30) as client,
                client.stream("POST", url, json=body, headers=headers) as answer,
            ):
                lines = answer.aiter_lines()
                assert (await anext(lines)).startswith("data: ")
                rewrite(running, second, more='[routing.aliases]\ngpt = "acme/two"\n')
                told = await asyncio.to_thread(running.cli, "reload")
                assert "providers" in told
                assert (await asyncio.to_thread(ask, running, key, "gpt")).status_code == 200
                assert (await asyncio.to_thread(ask, running, key, "acme/one")).status_code == 404
                rest = [line async for line in lines if line]
            assert rest[-1] == "data: [DONE]"
            assert old.books[0].finished
            assert len(new.books) == 1


async def test_sighup_reads_the_file_again_and_a_mistake_changes_nothing(tmp_path: Path) -> None:
    async with PlayedProvider() as played:
        one = PROVIDER.format(id="mock", url=played.base_url, model="acme/one")
        two = PROVIDER.format(id="mock", url=played.base_url, model="acme/two")
        with appliance(tmp_path / "data", one) as running:
            key = await asyncio.to_thread(running.key)
            rewrite(running, two)
            os.kill(running.process.pid, signal.SIGHUP)
            async with asyncio.timeout(10):
                while (await asyncio.to_thread(ask, running, key, "acme/two")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            rewrite(running, two, "[[providers]]\nid = 'x'\nplugin = 'nope'\n")
            with pytest.raises(AssertionError, match="no plugin 'nope'"):
                await asyncio.to_thread(running.cli, "reload")
            rewrite(running, "[[providers]\n")
            with pytest.raises(AssertionError, match="not valid TOML"):
                await asyncio.to_thread(running.cli, "reload")
            assert (await asyncio.to_thread(ask, running, key, "acme/two")).status_code == 200
            rewrite(running, two, more="log_level = 'debug'\n")
            told = await asyncio.to_thread(running.cli, "reload", "--json")
            assert json.loads(told)["changed"] == ["server"]
            assert "server" not in json.loads(told)["needs_restart"]
            rewrite(running, two, more="log_level = 'debug'\nheartbeat_seconds = 20.0\n")
            told = await asyncio.to_thread(running.cli, "reload")
            assert re.search("only a restart takes it over: .*server", told)
