"""Promise: the program is started anew, and no client notices."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest

from tests.appliance import MOCK_PROVIDER, RunningAppliance, appliance
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

CONFIG = """
[server]
port = 0
drain_seconds_max = {drain}
"""
FAKE = """
[[local.models]]
id = "acme/fake"
source = "fake:"
engine = "fake"
"""
RESTARTS = 5


class Connection:
    """One connection that is never opened again: whatever breaks it, breaks the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)

    async def post(self, key: str, stream: bool) -> bytes:
        body = json.dumps(
            {
                "model": "acme/tiny",
                "messages": [{"role": "user", "content": "hi"}],
                "stream": stream,
            }
        ).encode()
        head = h11.Request(
            method="POST",
            target="/v1/chat/completions",
            headers=[
                ("Host", "127.0.0.1"),
                ("Authorization", f"Bearer {key}"),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
            ],
        )
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(event) or b"")
        answer = b""
        while True:
            found: Any = self._http.next_event()
            if found is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(65536))
            elif isinstance(found, h11.Response):
                assert found.status_code == 200, found
            elif isinstance(found, h11.Data):
                answer += bytes(found.data)
            elif isinstance(found, h11.EndOfMessage):
                break
            else:
                raise AssertionError(found)
        self._http.start_next_cycle()  # raises where the server said that it closes
        return answer


@asynccontextmanager
async def connection(running: RunningAppliance) -> AsyncIterator[Connection]:
    url = httpx.URL(running.base_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def token(running: RunningAppliance) -> str | None:
    try:
        found: str = json.loads((running.data_dir / "server.json").read_text())["token"]
    except (OSError, ValueError):
        return None
    return found


async def restarted(running: RunningAppliance, before: str | None) -> None:
    """Until another run serves."""
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False, timeout=60) as client:
        while token(running) in {before, None}:
            assert running.process.poll() is None
            await asyncio.sleep(0.05)
        assert (await client.get(f"{running.base_url}/readyz")).status_code == 200


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def sockets_of(pid: int) -> set[str]:
    found = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    return {target for target in found if target.startswith("socket:")}


def complete(answer: bytes, stream: bool) -> bool:
    if stream:
        return answer.endswith(b"data: [DONE]\n\n")
    return bool(json.loads(answer)["choices"][0]["message"]["content"])


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_under_load_no_call_is_refused_or_broken_and_the_ledger_is_right(
    tmp_path: Path,
) -> None:
    over = asyncio.Event()
    answered = {"new": 0, "kept": 0}

    async with PlayedProvider(always=Scene(words=10, gap_s=0.02)) as provider:
        config = (CONFIG + MOCK_PROVIDER).format(drain=20, base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.user, "alice", "pro")

            async def keep_asking(kind: str, turn: int) -> None:
                async with connection(running) as kept:
                    while not over.is_set():
                        stream = (turn := turn + 1) % 2 == 0
                        if kind == "new":
                            async with connection(running) as fresh:
                                assert complete(await fresh.post(key, stream), stream)
                        else:
                            assert complete(await kept.post(key, stream), stream)
                            await asyncio.sleep(0.1 * (turn % 3))
                        answered[kind] += 1

            async def restart_it() -> None:
                for turn in range(RESTARTS):
                    before = token(running)
                    if turn % 2:
                        told = await asyncio.to_thread(running.cli, "restart")
                        assert f"process {running.process.pid}" in told
                    else:
                        os.kill(running.process.pid, signal.SIGUSR2)
                    await restarted(running, before)
                over.set()

            async with connection(running) as idle, asyncio.TaskGroup() as group:
                for turn in range(4):
                    group.create_task(keep_asking("new", turn))
                    group.create_task(keep_asking("kept", turn))
                await restart_it()
                # Nothing was sent on it for five programs.
                assert complete(await idle.post(key, stream=False), stream=False)
            assert running.process.poll() is None
            assert min(answered.values()) > 20
            assert len(os.listdir(f"/proc/{running.process.pid}/fd")) < 60
            assert children_of(running.process.pid) == []

            (row,) = await asyncio.to_thread(running.usage)
            assert row["calls"] == sum(answered.values()) + 1 == len(provider.books)
            assert row["cost_nano_usd"] == sum(
                200 * each.prompt_tokens + 600 * each.completion_tokens for each in provider.books
            )
            assert "All is well" in await asyncio.to_thread(running.cli, "ledger", "audit")
            assert await asyncio.to_thread(running.stop) == 0


async def test_a_long_stream_ends_before_the_next_program_begins(tmp_path: Path) -> None:
    async with PlayedProvider(always=Scene(words=40, gap_s=0.05)) as provider:
        config = (CONFIG + MOCK_PROVIDER).format(drain=20, base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key, before = await asyncio.to_thread(running.key), token(running)
            async with connection(running) as first, connection(running) as second:
                long = asyncio.create_task(first.post(key, stream=True))
                await provider.wait_until(lambda: len(provider.books) == 1)
                os.kill(running.process.pid, signal.SIGUSR2)
                await restarted(running, before)
                assert long.done()  # it was served by the old program to its end
                assert complete(await long, stream=True)
                assert complete(await second.post(key, stream=True), stream=True)
                assert complete(await first.post(key, stream=False), stream=False)


async def test_the_drain_is_bounded_and_the_next_program_begins_all_the_same(
    tmp_path: Path,
) -> None:
    async with PlayedProvider(always=Scene(forever=True, gap_s=0.05)) as provider:
        config = (CONFIG + MOCK_PROVIDER).format(drain=1, base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key, before = await asyncio.to_thread(running.key), token(running)
            async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
                call = asyncio.create_task(
                    client.post(
                        f"{running.base_url}/v1/chat/completions",
                        headers={"Authorization": f"Bearer {key}"},
                        json={
                            "model": "acme/tiny",
                            "messages": [{"role": "user", "content": "hi"}],
                            "stream": True,
                        },
                    )
                )
                await provider.wait_until(lambda: len(provider.books) == 1)
                await asyncio.sleep(0.5)
                os.kill(running.process.pid, signal.SIGUSR2)
                await restarted(running, before)
                *_, last = [line for line in (await call).text.split("\n\n") if line]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
            (row,) = await asyncio.to_thread(running.usage)
            assert row["calls"] == 1
            assert row["cost_nano_usd"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_engines_are_gone_before_the_next_program_begins(tmp_path: Path) -> None:
    with appliance(tmp_path / "data", FAKE) as running:
        key, pid = running.key(), running.process.pid
        assert running.chat(key, "acme/fake").status_code == 200
        (engine,) = children_of(pid)
        running.cli("restart")
        assert not Path(f"/proc/{engine}").exists()
        assert running.chat(key, "acme/fake").status_code == 200
        (another,) = children_of(pid)
        assert another != engine
        # None of the server's sockets is the engine's, least of all the one that listens.
        assert sockets_of(pid) & sockets_of(another) == set()


def test_what_could_not_start_is_found_out_before_anything_stops(tmp_path: Path) -> None:
    with appliance(tmp_path / "data", FAKE) as running:
        before, good = token(running), running.config_path.read_text()
        broken = {
            "[[server]\n": "not valid TOML",
            f"{good}[[providers]]\nid = 'x'\nplugin = 'nope'\n": "no plugin 'nope'",
            f"{good}[[providers]]\nid = 'x'\nplugin = 'echo'\napi_key = 'env:NOWHERE'\n": "NOWHERE",
            good.replace("port = 0", "port = 1\nhost = '192.0.2.1'"): "cannot listen on 192.0.2.1",
        }
        for text, told in broken.items():
            running.config_path.write_text(text)
            failed = subprocess.run(
                [
                    *(sys.executable, "-m", "app", "--data-dir", str(running.data_dir)),
                    "restart",
                ],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert failed.returncode == 1
            assert "Nothing was restarted" in failed.stderr
            assert told in failed.stderr
            os.kill(running.process.pid, signal.SIGUSR2)
        running.config_path.write_text(good)
        assert running.process.poll() is None
        assert token(running) == before
        assert running.chat(running.key(), "acme/fake").status_code == 200


def test_another_address_in_the_configuration_is_taken_by_the_next_program(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    with appliance(tmp_path / "data", FAKE) as running:
        text = running.config_path.read_text().replace("port = 0", f"port = {unused_tcp_port}")
        running.config_path.write_text(text)
        told = running.cli("restart")
        assert "restarted in" in told
        url = f"http://127.0.0.1:{unused_tcp_port}/livez"
        assert httpx.get(url, trust_env=False).status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.base_url}/livez", trust_env=False)


async def test_sigterm_in_the_middle_of_it_stops(tmp_path: Path) -> None:
    async with PlayedProvider(always=Scene(words=40, gap_s=0.05)) as provider:
        config = (CONFIG + MOCK_PROVIDER).format(drain=20, base_url=provider.base_url)
        with appliance(tmp_path / "data", config) as running:
            key = await asyncio.to_thread(running.key)
            log = running.data_dir / "serve.log"
            async with connection(running) as client:
                long = asyncio.create_task(client.post(key, stream=True))
                await provider.wait_until(lambda: len(provider.books) == 1)
                os.kill(running.process.pid, signal.SIGUSR2)
                async with asyncio.timeout(20):
                    while "restarting:" not in log.read_text():  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                running.process.terminate()
                # The whole answer comes, though it may say that the connection closes.
                with contextlib.suppress(h11.LocalProtocolError):
                    assert complete(await long, stream=True)
            assert await asyncio.to_thread(running.process.wait, 30) == 0
