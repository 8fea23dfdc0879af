"""Promise: each call has one line that says who, what, how long and how much, and no more; how it
logs can be changed while it runs, and a log that cannot be written harms nobody."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.logs.fields import FIELDS
from tests.appliance import MOCK_PROVIDER, NO_BALLAST, RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

TINY_TIER = '\n[tiers.tiny]\nmonthly_credit_usd = "0.00"\n'


def configured(provider: PlayedProvider, logs: str, level: str = "info") -> str:
    head = f"[routing]\nprobes = false\n[server]\nport = 0\nlog_level = '{level}'\n[logs]\n{logs}\n"
    return head + MOCK_PROVIDER.format(base_url=provider.base_url) + TINY_TIER


def objects(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="ascii").splitlines():
        yield json.loads(line)


def calls(path: Path) -> list[dict[str, Any]]:
    return [each for each in objects(path) if each["logger"] == "turnpike.calls"]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not true():  # noqa: ASYNC110  # a file has no event
            await asyncio.sleep(0.02)


async def chat(running: RunningAppliance, key: str, **more: Any) -> httpx.Response:
    return await asyncio.to_thread(running.chat, key, "acme/tiny", **more)


async def test_each_call_has_one_line(tmp_path: Path) -> None:
    log = tmp_path / "calls.log"
    async with PlayedProvider(always=Scene(words=8)) as provider:
        config = configured(provider, f'format = "json"\nfile = "{log}"')
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            poor = await asyncio.to_thread(running.user, "tim", "tiny")
            good = await chat(running, key)
            streamed = await chat(running, key, stream=True)
            unpaid = await chat(running, poor)
            unknown = await chat(running, "tp_nobody")
            wrong = await asyncio.to_thread(running.chat, key, "acme/none")
            answers = [good, streamed, unpaid, unknown, wrong]
            assert [each.status_code for each in answers] == [200, 200, 402, 401, 404]
            await until(lambda: len(calls(log)) == 5)
            rows = json.loads(running.cli("usage", "rows", "--json"))
        assert log.stat().st_mode & 0o777 == 0o600
        assert not (tmp_path / "data" / "serve.log").read_text().count("call ended")
        for said in objects(log):
            assert set(said) <= set(FIELDS)
        by_id = {said["call_id"]: said for said in calls(log)}
        assert list(by_id) == [each.headers["Inference-Id"] for each in answers]
        assert [said["status"] for said in by_id.values()] == [200, 200, 402, 401, 404]
        codes = ["insufficient_quota", "invalid_api_key", "model_not_found"]
        assert [said.get("code") for said in by_id.values()] == [None, None, *codes]
        for row in rows:
            said = by_id[row["call_id"]]
            assert said["model"] == "acme/tiny"
            assert said["provider"] == "mock"
            assert said["user_id"] == said["payer_id"] == row["user_id"]
            assert said["key_id"] == row["key_id"]
            assert said["outcome"] == row["outcome"] == "completed"
            assert (said["input_tokens"], said["output_tokens"]) == (
                row["input_tokens"],
                row["output_tokens"],
            )
            assert said["cost_nano_usd"] == row["cost_nano_usd"] > 0
            assert said["duration_ms"] >= said.get("first_token_ms", 0) >= 0
        assert len(rows) == 2


async def test_a_call_whose_client_left_has_its_line_once_it_is_settled(tmp_path: Path) -> None:
    log = tmp_path / "calls.log"
    async with PlayedProvider(always=Scene(words=20, gap_s=0.05)) as provider:
        config = configured(provider, f'format = "json"\nfile = "{log}"')
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            body = {
                "model": "acme/tiny",
                "stream": True,
                "messages": [{"role": "user", "content": "x"}],
            }
            async with (
                httpx.AsyncClient(trust_env=False, timeout=30) as client,
                client.stream(
                    "POST",
                    f"{running.base_url}/v1/chat/completions",
                    json=body,
                    headers={"Authorization": f"Bearer {key}"},
                ) as answer,
            ):
                await anext(answer.aiter_lines())
            await until(lambda: bool(calls(log)))
            (said,) = calls(log)
            assert said["outcome"] == "client_left"
            assert said["cost_nano_usd"] > 0


async def test_a_reload_changes_level_form_and_place(tmp_path: Path) -> None:
    log, second = tmp_path / "one.log", tmp_path / "two.log"
    async with PlayedProvider() as provider:
        config = configured(provider, f'file = "{log}"')
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)

            async def reload(logs: str, level: str = "info") -> list[str]:
                running.config_path.write_text(NO_BALLAST + configured(provider, logs, level))
                told = json.loads(await asyncio.to_thread(running.cli, "reload", "--json"))
                assert not {"server", "logs"} & set(told["needs_restart"])
                return list(told["changed"])

            assert (await chat(running, key)).status_code == 200
            await until(lambda: "call ended" in log.read_text())
            assert re.search(r"Z INFO turnpike\.calls: call ended .*status=200", log.read_text())

            told = await reload(f'format = "json"\nfile = "{second}"')
            assert told == ["logs"]
            await chat(running, key)
            await until(lambda: len(calls(second)) == 1)
            first = log.read_text()

            told = await reload(f'format = "json"\nfile = "{second}"', "warning")
            assert told == ["server"]
            await chat(running, key)
            await chat(running, "tp_nobody")
            assert len(calls(second)) == 1

            await reload(f'format = "json"\nfile = "{second}"\ncalls = false')
            await chat(running, key)
            assert list(objects(second))[-1]["message"] == "configuration reloaded: server, logs"
            assert len(calls(second)) == 1

            with pytest.raises(AssertionError, match=r"logs\.file: there is no folder"):
                await reload(f'file = "{tmp_path}/nowhere/x.log"')
            await reload(f'format = "json"\nfile = "{second}"')
            await chat(running, key)
            await until(lambda: len(calls(second)) == 2)
            assert log.read_text() == first


async def test_sighup_opens_a_file_that_was_moved_away(tmp_path: Path) -> None:
    log, moved = tmp_path / "t.log", tmp_path / "t.log-20260301"
    async with PlayedProvider() as provider:
        config = configured(provider, f'format = "json"\nfile = "{log}"')
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            await chat(running, key)
            log.rename(moved)
            await chat(running, key)
            await until(lambda: len(calls(moved)) == 2)
            os.kill(running.process.pid, signal.SIGHUP)
            await until(log.exists)
            await until(lambda: "configuration reloaded" in log.read_text())
            await chat(running, key)
            await until(lambda: len(calls(log)) == 1)
            assert len(calls(moved)) == 2
            assert log.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[server]\nport = 0\n[logs]\nfile = "{tmp_path}/nowhere/t.log"\n')
    command = [sys.executable, "-m", "app", "--config", str(config)]
    done = subprocess.run(
        [*command, "--data-dir", str(tmp_path / "data"), "serve"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"logs.file: there is no folder {tmp_path}/nowhere. Make it" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


@contextmanager
def with_full_standard_error(data: Path, config: str) -> Iterator[RunningAppliance]:
    """Every write of its log fails with ENOSPC, as on a full disk."""
    data.mkdir()
    path, endpoint = data / "config.toml", data / "server.json"
    path.write_text(config)
    command = [sys.executable, "-m", "app", "--config", str(path), "--data-dir", str(data)]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [*command, "serve"], stdout=subprocess.DEVNULL, stderr=full, text=True
        )
    try:
        give_up = time.monotonic() + 40
        while not (endpoint.exists() and endpoint.read_text().endswith("}")):
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.02)
        base_url = json.loads(endpoint.read_text())["base_url"]
        yield RunningAppliance(process, data, path, base_url, {**os.environ})
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_calls_go_on_while_nothing_can_be_logged(tmp_path: Path) -> None:
    async with PlayedProvider() as provider:
        started = with_full_standard_error(tmp_path / "data", configured(provider, ""))
        running = await asyncio.to_thread(started.__enter__)
        try:
            key = await asyncio.to_thread(running.key)
            for _ in range(20):
                assert (await chat(running, key)).status_code == 200
            assert (await chat(running, "tp_nobody")).status_code == 401
            assert await asyncio.to_thread(running.stop) == 0
        finally:
            started.__exit__(None, None, None)
