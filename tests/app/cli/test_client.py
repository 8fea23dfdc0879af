"""How a command finds the server, and what it does when it cannot."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from app.api.admin.wire import NewTier, UserList
from app.cli import client as client_module
from app.cli.client import CommandFailed, connect
from app.config import Config, parse
from app.identity.users import User
from app.storage.lock import SERVER_FILE, DataDirLock


class Answers(BaseHTTPRequestHandler):
    """Answers by path; notes what it was sent."""

    answers: ClassVar[dict[str, tuple[int, bytes]]]
    seen: ClassVar[list[tuple[str, str, str, bytes]]]

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        authorization = self.headers.get("authorization", "")
        self.seen.append((self.command, self.path, authorization, self.rfile.read(length)))
        status, body = self.answers.get(self.path.partition("?")[0], (200, b"{}"))
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(answers: dict[str, tuple[int, bytes]]) -> Iterator[tuple[str, type[Answers]]]:
    kind = type("TheseAnswers", (Answers,), {"answers": answers, "seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", kind
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def announce(data_dir: Path, base_url: str) -> None:
    announced = {"pid": 1, "base_url": base_url, "token": "the-token"}
    (data_dir / SERVER_FILE).write_text(json.dumps(announced))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse({}, source="test", data_dir=str(tmp_path))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WAIT_SECONDS_MAX", 1.5)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # must not be used
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")


async def test_a_running_server_is_asked_with_its_token(tmp_path: Path, config: Config) -> None:
    user = b'{"id":"u","name":"al","tier":"pro","role":"member","created_at_ms":1,"new_field":2}'
    with serving({"/api/users/al/tier": (200, user)}) as (url, server), DataDirLock(tmp_path):
        announce(tmp_path, url)
        async with connect(config) as client:
            found = await client.send("PUT", "/api/users/al/tier", User, body=NewTier(tier="pro"))
    assert found == User(id="u", name="al", tier="pro", role="member", created_at_ms=1)
    assert server.seen[-1] == (
        "PUT", "/api/users/al/tier", "Bearer the-token", b'{"tier":"pro"}'
    )  # fmt: skip


async def test_a_server_that_is_still_starting_is_waited_for(
    tmp_path: Path, config: Config
) -> None:
    users = {"/api/users": (200, b'{"data":[]}')}
    with serving(users) as (url, _), DataDirLock(tmp_path):
        announce(tmp_path, "http://127.0.0.1:9")  # nothing listens there

        async def get_ready() -> None:
            await asyncio.sleep(0.4)
            announce(tmp_path, url)

        ready = asyncio.create_task(get_ready())
        async with connect(config) as client:
            assert (await client.send("GET", "/api/users", UserList)).data == []
        await ready


async def test_a_server_that_never_answers_ends_in_a_clear_error(
    tmp_path: Path, config: Config
) -> None:
    with DataDirLock(tmp_path):
        announce(tmp_path, "http://127.0.0.1:9")
        with pytest.raises(CommandFailed, match="does not answer") as caught:
            async with connect(config):
                pytest.fail("there is nothing to connect to")
    assert str(tmp_path) in caught.value.message


async def test_a_process_that_holds_the_directory_silently_ends_in_a_clear_error(
    tmp_path: Path, config: Config
) -> None:
    began = time.monotonic()
    with DataDirLock(tmp_path), pytest.raises(CommandFailed, match="does not answer"):
        async with connect(config):
            pytest.fail("the directory is taken")
    assert time.monotonic() - began > 1  # it waited for a server that might be starting


async def test_another_command_on_the_directory_is_waited_for(
    tmp_path: Path, config: Config
) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()

    async def finish() -> None:
        await asyncio.sleep(0.3)
        lock.release()

    finishing = asyncio.create_task(finish())
    async with connect(config) as client:
        assert (await client.send("GET", "/api/users", UserList)).data == []
    await finishing


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b'{"error":{"message":"There is no user.","type":"x"}}', "There is no user."),
        (502, b"<html>bad gateway</html>", "status 502"),
        (400, b'{"error":"text"}', "status 400"),
        (200, b'{"something":"else"}', "another version"),
        (200, b"not json", "another version"),
    ],
)
async def test_refusals_and_nonsense_become_one_message(
    tmp_path: Path, config: Config, status: int, body: bytes, words: str
) -> None:
    with serving({"/api/users": (status, body)}) as (url, _), DataDirLock(tmp_path):
        announce(tmp_path, url)
        async with connect(config) as client:
            with pytest.raises(CommandFailed, match=words):
                await client.send("GET", "/api/users", UserList)


async def test_a_server_that_dies_under_a_request_is_an_error(
    tmp_path: Path, config: Config
) -> None:
    with DataDirLock(tmp_path):
        with serving({}) as (url, _):
            announce(tmp_path, url)
            connection = connect(config)
            client = await connection.__aenter__()
        with pytest.raises(CommandFailed, match="did not answer"):
            await client.send("GET", "/api/users", UserList)
        await connection.__aexit__(None, None, None)
