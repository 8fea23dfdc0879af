"""The binary delivers traces too: what OpenTelemetry and protobuf look for by name is inside."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import httpx

from tests.frozen.test_binary import run
from tests.upstreams.collector import PlayedCollector

CONFIG = """
[server]
port = 0
data_dir = "{data}"
[disk]
ballast_bytes = 0
[tracing]
endpoint = "{endpoint}"
[[local.models]]
id = "a/b"
source = "fake:"
engine = "fake"
"""


def start(program: Path, config: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        command = [str(program), "--config", str(config), "serve"]
        return subprocess.Popen(command, env={}, stdout=file, stderr=file)


async def test_it_traces_and_goes_on_after_a_restart(folder: Path, tmp_path: Path) -> None:
    program, config = folder / "turnpike", tmp_path / "turnpike.toml"
    data = tmp_path / "data"

    async def turnpike(*words: str) -> str:
        done = await asyncio.to_thread(run, program, "--config", str(config), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async with PlayedCollector() as collector:
        config.write_text(CONFIG.format(data=data, endpoint=collector.endpoint))
        server = start(program, config, tmp_path / "log")
        try:
            async with asyncio.timeout(60):
                while not (data / "server.json").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            key = await turnpike("keys", "create", "--user", "owner")
            for _ in range(2):
                base_url = json.loads((data / "server.json").read_text())["base_url"]
                async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
                    answer = await http.post(
                        f"{base_url}/v1/chat/completions",
                        headers={"Authorization": f"Bearer {key}"},
                        json={"model": "a/b", "messages": [{"role": "user", "content": "hi"}]},
                    )
                assert answer.status_code == 200, answer.text
                await turnpike("restart")
            calls = await collector.calls(2)
        finally:
            server.terminate()
            await asyncio.to_thread(server.wait, 30)
    for call in calls:
        assert call.error is None
        assert [each.name for each in call.child("chat a/b").children] == ["queue", "generate"]
    assert "Traceback" not in (tmp_path / "log").read_text()
    if os.name == "posix":  # the fast form of protobuf, not the one in Python
        assert list((folder / "_internal").glob("google/_upb/_message*.so"))
