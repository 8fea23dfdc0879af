"""The commands without a server: each opens the data directory itself, the first one makes it."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.identity.key_format import parse_key
from app.storage.lock import DataDirLock
from app.version import VERSION
from tests.app.cli.terminal import Inside, Turnpike


def test_users_and_keys_from_nothing(turnpike: Turnpike) -> None:
    added = turnpike.out("users", "add", "alice", "--tier", "free")
    assert added == "Added alice, member, on tier free.\n"
    assert turnpike.data_dir.stat().st_mode & 0o777 == 0o700

    key = turnpike.out("keys", "create", "--user", "alice", "--name", "my laptop")
    parts = parse_key(key.removesuffix("\n"))  # the key alone, nothing else
    assert parts is not None

    (listed,) = turnpike.json("keys", "list")
    assert (listed["user_name"], listed["name"]) == ("alice", "my laptop")
    assert listed["prefix"] == parts.prefix
    assert parts.secret not in str(listed)

    assert turnpike.out("users", "tier", "alice", "gold") == "alice is on tier gold now.\n"
    (user,) = turnpike.json("users", "list")
    assert (user["name"], user["tier"], user["role"]) == ("alice", "gold", "member")

    revoked = turnpike.out("keys", "revoke", key.strip())
    assert revoked == f"Revoked tp_{parts.prefix}, my laptop of alice.\n"
    header, row = turnpike.out("keys", "list").splitlines()
    assert header == "KEY\tUSER\tNAME\tCREATED\tLAST_USED\tREVOKED"
    assert re.fullmatch(r"tp_\w{10}\talice\tmy laptop\t[\dTZ:-]+\t-\t[\dTZ:-]+", row)

    for path in turnpike.data_dir.rglob("*"):
        if path.is_file():
            assert parts.secret.encode() not in path.read_bytes()


def test_json_of_what_is_made(inside: Inside) -> None:
    user = inside.json("users", "add", "root", "--tier", "pro", "--role", "owner")
    assert (user["name"], user["role"]) == ("root", "owner")
    created = inside.json("keys", "create", "--user", "ROOT")
    assert created["user_id"] == user["id"]
    assert parse_key(created["key"]) is not None
    assert inside.json("keys", "revoke", created["id"])["revoked_at_ms"] is not None
    assert inside.json("users", "tier", "root", "gold")["tier"] == "gold"


def test_models_and_usage(inside: Inside) -> None:
    assert inside.out("models", "list") == (
        "MODEL\tPROVIDER\tSTATUS\tPRICE\tCONTEXT\n"
        "acme/tiny\tmock\tlive\t$0.20 in, $0.60 out per million tokens\t8192\n"
    )
    (model,) = inside.json("models", "list")
    assert (model["upcoming"], model["price"]["per_request"]) == ([], 0)
    assert model["price"]["input"] == 200_000_000
    assert inside.out("usage") == ("MODEL\tCALLS\tINPUT_TOKENS\tOUTPUT_TOKENS\tCOMPUTE_S\tCOST\n")
    assert inside.json("usage", "--by", "key", "--since", "2026-01-01") == []


def test_models_with_all_kinds_of_prices(inside: Inside, config_file: Path) -> None:
    with config_file.open("a", encoding="utf-8") as file:
        file.write(
            """
[[providers.models.prices]]
from = "9000-01-01"
per_second = "0.00012"
[[providers.models]]
id = "acme/loud"
price = { input = "1", output = "2", audio_input = "3", image = "0.04", per_request = "0.001" }
[[providers.models]]
id = "acme/later"
[[providers.models.prices]]
from = "9000-01-01"
input = "1"
output = "2"
"""
        )
    (_, tiny, loud, later) = inside.out("models", "list").splitlines()
    assert tiny.split("\t")[3] == (
        "$0.20 in, $0.60 out per million tokens | from 9000-01-01T00:00:00Z: $0.00012 per second"
    )
    assert loud.split("\t")[3] == (
        "$1.00 in, $2.00 out, $3.00 audio in per million tokens; $0.04 per image;"
        " $0.001 per request"
    )
    assert later.split("\t")[2:4] == [
        "unpriced",
        "none | from 9000-01-01T00:00:00Z: $1.00 in, $2.00 out per million tokens",
    ]


def test_mistakes_are_one_line_and_say_what_to_do(inside: Inside) -> None:
    wrong_tier = inside.refused("users", "add", "bob", "--tier", "silver")
    assert "no tier 'silver'; tiers: free, pro, gold" in wrong_tier
    assert "no user named 'bob'" in inside.refused("keys", "create", "--user", "bob")
    assert "turnpike keys list" in inside.refused("keys", "revoke", "tp_AAAAAAAAAA")
    assert "2026-01-31" in inside.refused("usage", "--since", "the day before")
    inside.out("users", "add", "bob", "--tier", "free")
    assert "named bob already" in inside.refused("users", "add", "bob", "--tier", "free")


def test_what_is_typed_wrong_exits_2(inside: Inside) -> None:
    assert "--tier" in inside.refused("users", "add", "bob", status=2)
    assert "'hour'" in inside.refused("usage", "--by", "hour", status=2)
    assert "frobnicate" in inside.refused("frobnicate", status=2)
    assert "turnpike users add --help" in inside.refused("users", "add", status=2)
    assert not inside.data_dir.exists()


def test_a_wrong_configuration_is_refused_with_the_path_to_the_key(tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text("[server]\nprot = 1\n")
    assert "server.prot: unknown key" in Inside(tmp_path, config).refused("users", "list")
    missing = Inside(tmp_path, tmp_path / "none.toml").refused("users", "list")
    assert "none.toml" in missing


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used" in Inside(tmp_path / "file" / "data").refused("users", "list")


def test_version_and_help_need_no_data(turnpike: Turnpike) -> None:
    assert turnpike.out("--version") == f"turnpike {VERSION}\n"
    shown = turnpike.out("--help")
    for command in ("serve", "users", "keys", "models", "usage"):
        assert re.search(rf"\b{command}\b", shown)
    assert "worker" not in shown
    assert not turnpike.data_dir.exists()


def test_the_command_line_loads_neither_the_application_nor_an_engine() -> None:
    script = (
        "import sys, app.cli.main;"
        "print([m for m in ('litestar', 'uvicorn', 'app.boot', 'llama_cpp', 'torch')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_a_person_sees_tables_and_is_told_that_a_key_is_shown_once(turnpike: Turnpike) -> None:
    assert "There are no users yet" in turnpike.on_terminal("users", "list")
    turnpike.out("users", "add", "alice", "--tier", "free")
    shown = turnpike.on_terminal("keys", "create", "--user", "alice")
    assert "shown only this once" in shown
    key = shown.splitlines()[-1].strip()
    assert parse_key(key) is not None
    table = turnpike.on_terminal("keys", "list")
    assert "\t" not in table
    assert f"tp_{key[3:13]}" in table
    assert key not in table


def test_a_dead_servers_file_is_no_obstacle(inside: Inside) -> None:
    inside.out("users", "add", "alice", "--tier", "free")
    announced = '{"pid": 1, "base_url": "http://127.0.0.1:9", "token": "old"}'
    (inside.data_dir / "server.json").write_text(announced)
    assert [user["name"] for user in inside.json("users", "list")] == ["alice"]


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Processes started now heed Ctrl-C, although a shell started these tests in the background,
    where children inherit that they ignore it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_is_quiet(turnpike: Turnpike) -> None:
    with DataDirLock(turnpike.data_dir), socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        announced = {"pid": 1, "base_url": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        announced["token"] = "t"
        (turnpike.data_dir / "server.json").write_text(json.dumps(announced))
        process = turnpike.start("users", "list")
        connection, _ = silent.accept()
        connection.settimeout(30)
        with connection, process:
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(4096)
            time.sleep(0.5)  # and waits for an answer: nothing of Python's swallows the signal
            process.send_signal(signal.SIGINT)
            try:
                out, err = process.communicate(timeout=30)
            finally:
                process.kill()
    assert process.returncode == 130
    assert out == ""
    assert err.strip() == ""
