"""The server on the data directory: ready, not ready, deaf, or none."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api.admin.local_wire import LocalModelLine
from app.doctor.finding import Commands, Finding
from app.doctor.server import check_server, clock_of, who_is_there
from app.storage.lock import SERVER_FILE, DataDirLock
from tests.app.doctor.answering import answering
from tests.app.doctor.patients import problems

COMMANDS = Commands(None, "d")


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    with DataDirLock(tmp_path):
        yield tmp_path


def check(data: Path, url: str) -> list[Finding]:
    file = {"pid": os.getpid(), "base_url": url, "token": "secret-token"}
    (data / SERVER_FILE).write_text(json.dumps(file))
    return check_server(who_is_there(data), COMMANDS)


def test_a_server_that_takes_calls(held: Path) -> None:
    with answering((200, b'{"status": "ready"}')) as (url, heard):
        (found,) = check(held, url)
    assert found.code == "server.ready"
    assert heard[0].startswith(b"GET /readyz ")


def test_a_model_that_the_server_could_not_load(held: Path) -> None:
    body = b'{"status": "ready", "problems": {}, "local_models": {"a": "warm", "b": "failed"}}'
    with answering((200, body)) as (url, _):
        found = check(held, url)
    assert [each.code for each in found] == ["server.ready", "server.model_failed"]
    assert found[1].fix.endswith("turnpike --data-dir d models load b")


def line(model: str, **fields: object) -> dict[str, object]:
    """What a server says of one of its models."""
    kinds = LocalModelLine.__struct_fields__
    blank: dict[str, object] = dict.fromkeys(kinds, 0) | {
        "model": model, "state": "warm", "engine": "fake", "placement": "child", "error": None,
        "waits_for_room": False, "keep": False,
    }  # fmt: skip
    return blank | fields


def test_models_whose_engines_get_no_memory(held: Path) -> None:
    ready = b'{"status": "ready", "local_models": {"a": "warm", "b": "failed", "c": "warm"}}'
    told = [
        line("a", out_of_memory=2),
        line("b", out_of_memory=3, state="failed", error="it wanted more than the 99 MiB"),
        line("c"),
    ]
    lines = {"data": told, "memory_bytes": 0, "memory_bytes_max": 0}
    with answering((200, ready), (200, json.dumps(lines).encode())) as (url, heard):
        found = check(held, url)
    assert heard[1].startswith(b"GET /api/local/models ")
    assert [each.code for each in found] == [
        "server.ready", "server.model_failed", "server.model_out_of_memory",
    ]  # fmt: skip
    assert "b: it wanted more than the 99 MiB" in found[1].text
    assert "of a got no more memory 2 times" in found[2].text


def test_a_server_that_takes_none_says_why(held: Path) -> None:
    body = b'{"status": "unavailable", "problems": {"ledger": "stopped after a failed write"}}'
    with answering((503, body)) as (url, _):
        found = check(held, url)
    assert problems(found) == {"server.not_ready"}
    assert "ledger: stopped after a failed write" in found[0].text
    assert f"kill {os.getpid()}" in found[0].fix


def test_a_server_that_does_not_answer(held: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        found = check(held, f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert problems(found) == {"server.deaf"}
    with answering((200, b"not json")) as (url, _):
        assert problems(check(held, url)) == {"server.deaf"}


def test_the_file_of_a_server_that_was_killed_is_no_server(tmp_path: Path) -> None:
    (found,) = check(tmp_path, "http://127.0.0.1:9")
    assert found.code == "server.stopped"
    assert "turnpike --data-dir d serve" in found.text


def test_its_clock(held: Path) -> None:
    body = (
        b'{"ledger_ms": 2, "clock_ms": 1, "suspended": true, "suspended_since_ms": 2,'
        b' "step_ms": -1, "lead_ms": 0, "advice": "wait"}'
    )
    with answering((200, body)) as (url, heard):
        file = {"pid": os.getpid(), "base_url": url, "token": "secret-token"}
        (held / SERVER_FILE).write_text(json.dumps(file))
        state = clock_of(who_is_there(held))
    assert state is not None
    assert state.suspended
    assert b"Bearer secret-token" in heard[0]
    (held / SERVER_FILE).unlink()
    assert clock_of(who_is_there(held)) is None
