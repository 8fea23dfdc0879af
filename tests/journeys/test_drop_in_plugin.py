"""A plugin that is one file in a folder serves calls; what nobody approved is never run."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from plugins.drop_in import digest_of
from tests.appliance import RunningAppliance, appliance, cli
from tests.plugins.acme import KEY, SOURCE, PlayedAcme

PROVIDER = """
[[providers]]
id = "{id}"
plugin = "{id}"
base_url = "{url}"
api_key = "env:ACME_KEY"
probe = false
[[providers.models]]
id = "acme/{id}"
upstream_id = "big-1"
price = {{ input = "0.50", output = "1.50" }}
"""
ENV = {"ACME_KEY": KEY}
OTHER = SOURCE.replace('name="acme"', 'name="other"')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "plugins"
    made.mkdir()
    made.chmod(0o755)
    return made


def put(folder: Path, name: str, source: str) -> str:
    """Write a file; the line that allows it."""
    (folder / name).write_text(source)
    (folder / name).chmod(0o644)
    return f'"{name}" = "{digest_of(source.encode())}"\n'


def config(folder: Path, url: str, *lines: str, providers: tuple[str, ...] = ("acme",)) -> str:
    tables = "".join(PROVIDER.format(id=each, url=url) for each in providers)
    allow = f"[plugins]\nfolder = {str(folder)!r}\n[plugins.allow]\n" + "".join(lines)
    return f"[server]\nport = 0\n{allow}{tables}"


async def ask(running: RunningAppliance, key: str, model: str) -> tuple[int, str]:
    answer = await asyncio.to_thread(running.chat, key, model, "hello")
    body = answer.json()
    said = body["choices"][0]["message"]["content"] if answer.status_code == 200 else str(body)
    return answer.status_code, said


async def test_a_dropped_in_plugin_serves_and_is_billed_and_an_unlisted_one_is_not_run(
    folder: Path, tmp_path: Path
) -> None:
    allowed = put(folder, "acme.py", SOURCE)
    put(folder, "evil.py", f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    async with PlayedAcme() as played:
        first = config(folder, played.origin, allowed)
        with appliance(tmp_path / "data", first, ENV) as running:
            key = await asyncio.to_thread(running.key)
            assert await ask(running, key, "acme/acme") == (200, "USER: HELLO")
            listed = await asyncio.to_thread(running.cli, "plugins", "list")
            (usage,) = await asyncio.to_thread(running.usage)
        log = (tmp_path / "data" / "serve.log").read_text()
    assert (usage["calls"], usage["input_tokens"], usage["output_tokens"]) == (1, 2, 2)
    assert not (tmp_path / "ran").exists()
    assert log.count("evil.py") == 1
    assert re.search(r"^acme\tAcme\tdrop-in .*acme.py\t2\tyes\t-$", listed, re.M)
    assert listed.endswith(put(folder, "evil.py", (folder / "evil.py").read_text()))
    assert KEY not in log + listed


async def test_a_newly_allowed_file_comes_with_a_reload_and_a_changed_one_does_not(
    folder: Path, tmp_path: Path
) -> None:
    acme = put(folder, "acme.py", SOURCE)
    async with PlayedAcme() as played:
        url = played.origin
        with appliance(tmp_path / "data", config(folder, url, acme), ENV) as running:
            key = await asyncio.to_thread(running.key)
            other = put(folder, "other.py", OTHER)
            both = config(folder, url, acme, other, providers=("acme", "other"))
            running.config_path.write_text(both)
            assert "plugins" in await asyncio.to_thread(running.cli, "reload")
            assert await ask(running, key, "acme/other") == (200, "USER: HELLO")

            changed = put(folder, "acme.py", SOURCE + f"open({str(tmp_path / 'ran')!r}, 'w')\n")
            with pytest.raises(AssertionError) as refused:
                await asyncio.to_thread(running.cli, "reload")
            assert "Nothing was changed" in str(refused.value)
            assert changed.split('"')[3] in str(refused.value)
            assert await ask(running, key, "acme/acme") == (200, "USER: HELLO")
            assert await ask(running, key, "acme/other") == (200, "USER: HELLO")
        refusal = pytest.raises(AssertionError, match="changed since it was allowed")
        with refusal, appliance(tmp_path / "data", both, ENV):
            raise RuntimeError("it started")
    assert not (tmp_path / "ran").exists()


async def test_sighup_takes_over_a_newly_allowed_file(folder: Path, tmp_path: Path) -> None:
    other = put(folder, "other.py", OTHER)
    async with PlayedAcme() as played:
        url = played.origin
        with appliance(tmp_path / "data", config(folder, url, providers=()), ENV) as running:
            key = await asyncio.to_thread(running.key)
            running.config_path.write_text(config(folder, url, other, providers=("other",)))
            os.kill(running.process.pid, signal.SIGHUP)
            async with asyncio.timeout(20):
                while (await ask(running, key, "acme/other"))[0] != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


async def test_the_command_s_line_allows_a_file(folder: Path, tmp_path: Path) -> None:
    """What ``turnpike plugins list`` prints goes into the configuration as it is."""
    put(folder, "acme.py", SOURCE)
    async with PlayedAcme() as played:
        path = tmp_path / "config.toml"
        path.write_text(f"[plugins]\nfolder = {str(folder)!r}\n")
        told = await asyncio.to_thread(cli, tmp_path / "none", "plugins", "list", config=path)
        line = told.rpartition("[plugins.allow]\n")[2]
        told_config = config(folder, played.origin, line)
        with appliance(tmp_path / "data", told_config, ENV) as running:
            key = await asyncio.to_thread(running.key)
            assert (await ask(running, key, "acme/acme"))[0] == 200


async def test_a_new_version_that_was_allowed_serves_after_a_reload(
    folder: Path, tmp_path: Path
) -> None:
    async with PlayedAcme() as played:
        url = played.origin
        first = config(folder, url, put(folder, "acme.py", SOURCE))
        with appliance(tmp_path / "data", first, ENV) as running:
            key = await asyncio.to_thread(running.key)
            assert await ask(running, key, "acme/acme") == (200, "USER: HELLO")
            newer = put(folder, "acme.py", SOURCE.replace("{m.role}: ", "{m.role} says: "))
            running.config_path.write_text(config(folder, url, newer))
            await asyncio.to_thread(running.cli, "reload")
            assert await ask(running, key, "acme/acme") == (200, "USER SAYS: HELLO")
