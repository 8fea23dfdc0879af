"""Promises of starting and stopping: one process per directory, and a stop that drains."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx

from tests.appliance import MOCK_PROVIDER, appliance
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

CONFIG = """
[server]
port = 0
drain_seconds_max = {drain}
"""


def serve_again(data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", "--data-dir", str(data_dir), "serve"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def ask(url: str, key: str, stream: bool) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        return await client.post(
            f"{url}/v1/chat/completions",
            json={
                "model": "acme/tiny",
                "messages": [{"role": "user", "content": "hi"}],
                "stream": stream,
            },
            headers={"Authorization": f"Bearer {key}"},
        )


async def test_a_second_process_on_the_directory_exits_1(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    async with PlayedProvider() as provider:
        with appliance(
            data_dir, (CONFIG + MOCK_PROVIDER).format(drain=5, base_url=provider.base_url)
        ) as running:
            second = await asyncio.to_thread(serve_again, data_dir)
            assert second.returncode == 1
            assert str(running.process.pid) in second.stderr
            assert "already running" in second.stderr
            assert "Traceback" not in second.stderr
            assert running.process.poll() is None


async def test_sigterm_lets_running_calls_end_and_exits_0(tmp_path: Path) -> None:
    async with PlayedProvider() as provider:
        config = (CONFIG + MOCK_PROVIDER).format(drain=20, base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            provider.script("slow_body", "slow_body")
            calls = [
                asyncio.create_task(ask(running.base_url, key, stream)) for stream in (True, True)
            ]
            await provider.wait_until(lambda: len(provider.books) == 2)
            await asyncio.sleep(0.3)
            running.process.terminate()
            for response in await asyncio.gather(*calls):
                assert response.status_code == 200
                assert response.text.endswith("data: [DONE]\n\n")
            assert await asyncio.to_thread(running.process.wait, 20) == 0
            assert not (tmp_path / "data" / "server.json").exists()
            (row,) = json.loads(running.cli("usage", "--by", "model", "--json"))
            assert row["calls"] == 2
            assert row["cost_nano_usd"] == sum(
                200 * b.prompt_tokens + 600 * b.completion_tokens for b in provider.books
            )


async def test_the_drain_is_bounded_and_what_was_delivered_is_settled(tmp_path: Path) -> None:
    async with PlayedProvider() as provider:
        config = (CONFIG + MOCK_PROVIDER).format(drain=1, base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            provider.script("drip")
            call = asyncio.create_task(ask(running.base_url, key, True))
            await provider.wait_until(lambda: len(provider.books) == 1)
            await asyncio.sleep(1.5)
            running.process.terminate()
            response = await call
            *_, last = [line for line in response.text.split("\n\n") if line]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
            assert "[DONE]" not in response.text
            assert await asyncio.to_thread(running.process.wait, 20) == 0
            (row,) = json.loads(running.cli("usage", "--by", "model", "--json"))
            assert row["calls"] == 1
            assert row["cost_nano_usd"] > 0


async def test_an_answer_during_the_drain_says_that_its_connection_closes(tmp_path: Path) -> None:
    """So that no client sends its next request on a connection that is about to go."""
    async with PlayedProvider(always=Scene(wait_s=1.5)) as provider:
        config = (CONFIG + MOCK_PROVIDER).format(drain=20, base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            call = asyncio.create_task(ask(running.base_url, key, False))
            await provider.wait_until(lambda: len(provider.books) == 1)
            running.process.terminate()
            answer = await call
            assert answer.status_code == 200
            assert answer.headers["connection"] == "close"
            assert await asyncio.to_thread(running.process.wait, 20) == 0


async def test_a_second_sigterm_ends_at_once_and_settles_all_the_same(tmp_path: Path) -> None:
    async with PlayedProvider(always=Scene(words=900, gap_s=0.05)) as provider:
        config = (CONFIG + MOCK_PROVIDER).format(drain=60, base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            call = asyncio.create_task(ask(running.base_url, key, True))
            await provider.wait_until(lambda: len(provider.books) == 1)
            await asyncio.sleep(0.5)
            running.process.terminate()
            await asyncio.sleep(1)
            assert running.process.poll() is None  # it waits for the call
            running.process.terminate()
            assert await asyncio.to_thread(running.process.wait, 15) == 0
            response = await call
            assert "[DONE]" not in response.text
            (row,) = json.loads(running.cli("usage", "--by", "model", "--json"))
            assert row["calls"] == 1
            assert row["cost_nano_usd"] > 0
