"""The commands beside a running server: it does the work, and sees every change at once."""

import json
from pathlib import Path

import httpx

from tests.app.cli.terminal import Inside
from tests.appliance import RunningAppliance, appliance

CONFIG = """
[[local.models]]
id = "tiny/fake"
source = "fake:"
engine = "fake"
[local]
placement = "inline"
"""


def _models(server: RunningAppliance, key: str) -> int:
    response = httpx.get(
        f"{server.base_url}/v1/models",
        headers={"authorization": f"Bearer {key}"},
        trust_env=False,
    )
    return response.status_code


def test_a_server_sees_what_the_commands_do(tmp_path: Path) -> None:
    # No --config for the commands: the server's own tiers and models count.
    commands = Inside(tmp_path)
    with appliance(tmp_path, CONFIG) as server:
        commands.out("users", "add", "alice", "--tier", "free")
        key = commands.out("keys", "create", "--user", "alice").strip()
        assert _models(server, key) == 200
        assert _models(server, key) == 200  # from the cache
        assert server.chat(key, "tiny/fake").status_code == 200

        (line,) = commands.json("usage", "--by", "user")
        assert (line["label"], line["calls"]) == ("alice", 1)
        assert [user["name"] for user in commands.json("users", "list")] == ["owner", "alice"]

        commands.out("keys", "revoke", key[:13])
        assert _models(server, key) == 401
        assert [line["model"] for line in commands.json("models", "list")] == ["tiny/fake"]
        assert "tiers: free, pro" in commands.refused("users", "tier", "alice", "gold")
        token = json.loads((tmp_path / "server.json").read_text())["token"]
        assert (tmp_path / "server.json").stat().st_mode & 0o777 == 0o600
        assert _models(server, token) == 401  # the operator's token opens no other door
        server.stop()
    assert [user["name"] for user in commands.json("users", "list")] == ["owner", "alice"]


def test_after_a_kill_the_commands_work_without_the_server(tmp_path: Path) -> None:
    commands = Inside(tmp_path)
    with appliance(tmp_path, CONFIG) as server:
        commands.out("users", "add", "alice", "--tier", "free")
        server.kill()
    assert (tmp_path / "server.json").exists()
    assert len(commands.json("users", "list")) == 2
