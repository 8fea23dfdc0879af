"""A new configuration while calls run: nothing is dropped, and a mistake changes nothing."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Callable
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


async def test_backups_and_the_disk_are_looked_after_as_the_new_file_says(tmp_path: Path) -> None:
    """On SIGHUP the ballast gets its new size, new calls are refused by the new bound, and backups
    are planned. No restart; and the log says what needs one.
    """
    data, backups = tmp_path / "data", tmp_path / "backups"
    with appliance(data, "") as running:

        def rewritten(more: str) -> None:
            running.config_path.write_text(f"[routing]\nprobes = false\n{more}")
            os.kill(running.process.pid, signal.SIGHUP)

        async def until(what: str, condition: Callable[[], bool]) -> None:
            try:
                async with asyncio.timeout(40):
                    while not condition():  # noqa: ASYNC110  # another process has no event
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise AssertionError(f"{what}: {(data / 'serve.log').read_text()}") from None

        def size_of_ballast() -> int:
            ballast = data / "ballast"
            return ballast.stat().st_size if ballast.exists() else 0

        def told(name: str) -> str | None:
            text = httpx.get(f"{running.base_url}/metrics", trust_env=False).text
            found = re.search(rf"^turnpike_{name} (.*)$", text, re.MULTILINE)
            return None if found is None else found[1]

        assert told("disk_ballast_bytes") is None, "none is wanted"
        assert told("backup_failures_total") is None
        wanted = "[server]\nport = 0\n[disk]\nfree_bytes_min = 0\nballast_bytes = 3000000\n"
        rewritten(wanted)
        await until("the ballast is made", lambda: size_of_ballast() == 3_000_000)
        assert told("disk_ballast_bytes") == "3e+06"

        rewritten(wanted.replace("3000000", "1000000"))
        await until("it shrinks", lambda: size_of_ballast() == 1_000_000)

        asked = f"[backups]\nfolder = '{backups}'\n"
        rewritten(wanted.replace("port = 0", "port = 0\nheartbeat_seconds = 20.0") + asked)
        reason = "only a restart takes over what changed in [server]"
        await until("what needs a restart", lambda: reason in (data / "serve.log").read_text())
        said = json.loads(await asyncio.to_thread(running.cli, "reload", "--json"))
        assert said == {"changed": [], "needs_restart": ["server"]}, "the signal took it over"
        assert told("backup_failures_total") == "0.0"

        # Nothing but room that no disk has.
        rewritten(wanted.replace("free_bytes_min = 0", f"free_bytes_min = {1 << 60}") + asked)
        await until("the disk is low", lambda: told("disk_low") == "1.0")
        key = await asyncio.to_thread(running.key)
        refused = await asyncio.to_thread(ask, running, key, "acme/none")
        assert refused.status_code == 503
        rewritten(wanted + asked)
        await until("and is not", lambda: told("disk_low") == "0.0")
        running.stop()
    # The folder is looked at once a minute; the next start does so at once, by the same file.
    with appliance(data, f"[server]\nport = 0\n[disk]\nfree_bytes_min = 0\n{asked}"):
        async with asyncio.timeout(30):
            while not list(backups.glob("turnpike-*.tar")):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


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
