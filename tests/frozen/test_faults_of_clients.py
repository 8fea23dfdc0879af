"""Rows of the fault matrix, at the binary: clients that are slow, leave, or mean harm. Each gets a
clear 4xx with the request's id or is cut off, and the next call works."""

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.appliance import RunningAppliance, appliance
from tests.frozen.faulty import ask, books_agree, config_for
from tests.journeys.callers import Caller, chat, seed_of_run
from tests.journeys.ledger_file import LedgerFile
from tests.journeys.test_bad_input import check_shape, malformed_bodies, post
from tests.soak.watch import sample
from tests.upstreams.provider import PlayedProvider
from tests.upstreams.scenes import Scene

BODY_BYTES_MAX = 65_536
BODY_IDLE_S, BODY_S, UNREAD_S = 1.0, 3.0, 2.0
HEADERS_S = 15.0
LEAVERS = 200
MIB = 1 << 20
SERVER = f"""
[server]
port = 0
body_bytes_max = {BODY_BYTES_MAX}
body_idle_seconds_max = {BODY_IDLE_S}
body_seconds_max = {BODY_S}
unread_seconds_max = {UNREAD_S}
"""
GOOD = json.dumps({"model": "acme/tiny", "messages": [{"role": "user", "content": "hi"}]}).encode()
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@dataclass
class Place:
    """A running binary with short patience, and its provider."""

    running: RunningAppliance
    provider: PlayedProvider
    key: str

    async def post(self, body: bytes, **headers: str) -> Any:
        return await asyncio.to_thread(post, self.running, self.key, body, **headers)

    async def works(self) -> None:
        """A good call is answered."""
        assert (await self.post(GOOD)).status_code == 200

    def head(self, *lines: str) -> bytes:
        """The head of a request for a chat, with these headers besides."""
        first = ("POST /v1/chat/completions HTTP/1.1", "Host: a", "Content-Type: application/json")
        return "\r\n".join((*first, f"Authorization: Bearer {self.key}", *lines, "", "")).encode()

    async def raw(self, *pieces: bytes, pause_s: float = 0.0, seconds: float = 20.0) -> bytes:
        """All that comes back until the server closes; TimeoutError where it does not."""
        reader, writer = await self.connect()
        received = bytearray()

        async def read() -> None:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65_536):
                    received.extend(data)

        async with asyncio.timeout(seconds):
            reading = asyncio.create_task(read())
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    if reading.done():
                        break
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
            await reading
        writer.close()
        return bytes(received)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        where = urlsplit(self.running.base_url)
        return await asyncio.open_connection(where.hostname, where.port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with PlayedProvider() as provider:
        data_dir: Path = tmp_path_factory.mktemp("clients") / "data"
        config = config_for(provider, SERVER)
        with appliance(data_dir, config, program=folder / "turnpike") as running:
            key = await asyncio.to_thread(running.user, "ann", "pro")
            yield Place(running, provider, key)
            await LedgerFile(data_dir).settled()
            books_agree(running, provider)
            assert running.stop() == 0
        assert "Traceback" not in (data_dir / "serve.log").read_text()


def refusal(received: bytes, status: int) -> dict[str, Any]:
    """The one answer, which is an error of OpenAI's shape with the request's id."""
    assert received.startswith(b"HTTP/1.1 %d " % status), received[:300]
    answers = re.findall(rb"HTTP/1\.1 \d{3} ", received)
    assert len(answers) == 1, "more answers than requests"
    head, _, body = received.partition(b"\r\n\r\n")
    error: dict[str, Any] = json.loads(body)["error"]
    assert f"inference-id: {error['request_id']}".encode() in head.lower()
    return error


async def test_bodies_that_are_wrong(place: Place) -> None:
    sent = len(place.provider.books)
    for body in malformed_bodies():
        answer = await place.post(body)
        assert 400 <= answer.status_code < 500, (body[:200], answer.status_code)
        check_shape(answer)
    assert len(place.provider.books) == sent
    await place.works()


HUGE: dict[str, Any] = {
    "n": 10**9,
    "logprobs": 10**6,
    "top_logprobs": 10**6,
    "max_tokens": 10**18,
    "stop": ["x"] * 1000,
    "temperature": 10**9,
    "seed": 10**30,
    "logit_bias": {"1": 10**6},
}
ELSEWHERE = ("api_base", "base_url", "api_key", "user_config", "extra_headers", "azure_endpoint")


@pytest.mark.parametrize("name", HUGE)
async def test_numbers_and_lists_that_are_huge(place: Place, name: str) -> None:
    sent = len(place.provider.books)
    answer = await place.post(json.dumps({**json.loads(GOOD), name: HUGE[name]}).encode())
    assert 400 <= answer.status_code < 500, answer.text
    check_shape(answer)
    assert len(place.provider.books) == sent
    await place.works()


@pytest.mark.parametrize("name", ELSEWHERE)
async def test_fields_that_would_send_it_elsewhere(place: Place, name: str) -> None:
    async with PlayedProvider() as stranger:
        answer = await place.post(
            json.dumps({**json.loads(GOOD), name: stranger.base_url}).encode()
        )
        assert 400 <= answer.status_code < 500, answer.text
        assert check_shape(answer)["code"] == "unknown_parameter"
        assert stranger.connections_total == 0
    await place.works()


SMUGGLED = {
    "two lengths": ("Content-Length: 2", "Content-Length: 3"),
    "a length and chunks": ("Content-Length: 2", "Transfer-Encoding: chunked"),
    "chunks in odd letters": ("Transfer-Encoding: xchunked", "Content-Length: 2"),
    "a negative length": ("Content-Length: -1",),
    "a length in words": ("Content-Length: two",),
    "a signed length": ("Content-Length: +2",),
    "two hosts": ("Host: b", "Content-Length: 2"),
    "a space before the colon": ("Content-Length : 2",),
    "a folded header": ("X-A: b\r\n c", "Content-Length: 2"),
    "two keys": ("Authorization: Bearer b", "Content-Length: 2"),
    "a large head": ("X-Big: " + "a" * 40_000, "Content-Length: 2"),
}


@pytest.mark.parametrize("how", SMUGGLED)
async def test_heads_that_smuggle(place: Place, how: str) -> None:
    hidden = place.head("Content-Length: 0")
    received = await place.raw(place.head(*SMUGGLED[how]) + b"{}" + hidden)
    refusal(received, 400)
    await place.works()


async def test_a_body_that_is_too_large_or_not_what_its_length_says(place: Place) -> None:
    too_much = BODY_BYTES_MAX + 1
    received = await place.raw(place.head(f"Content-Length: {too_much}"))
    assert refusal(received, 413)["code"] == "request_too_large"
    chunk = b"%x\r\n%b\r\n" % (4096, b" " * 4096)
    received = await place.raw(place.head("Transfer-Encoding: chunked"), *([chunk] * 20))
    assert refusal(received, 413)["code"] == "request_too_large"
    received = await place.raw(place.head(f"Content-Length: {len(GOOD) + 9}") + GOOD)
    refusal(received, 400)
    received = await place.raw(place.head(f"Content-Length: {len(GOOD) - 9}") + GOOD)
    assert received.startswith(b"HTTP/1.1 400 ")
    await place.works()


async def test_bodies_that_stall_or_drip_and_heads_that_never_end(place: Place) -> None:
    head = place.head(f"Content-Length: {len(GOOD)}")

    async def seconds(*pieces: bytes, pause_s: float = 0.0) -> float:
        began = time.monotonic()
        refusal(await place.raw(*pieces, pause_s=pause_s, seconds=30), 400)
        return time.monotonic() - began

    drops = [GOOD[at : at + 1] for at in range(len(GOOD))]
    letters = [bytes([each]) for each in place.head()[:60]]
    stalled, dripping, slowloris = await asyncio.gather(
        seconds(head + GOOD[:5]),
        seconds(head, *drops, pause_s=0.2),
        seconds(*letters, pause_s=0.5),
    )
    assert stalled >= BODY_IDLE_S - 0.1
    assert dripping >= BODY_S - 0.1
    assert slowloris >= HEADERS_S - 0.5
    await place.works()


async def test_a_client_that_reads_nothing_is_cut_off_and_its_call_settled(place: Place) -> None:
    before = await sample(place.running, 0)
    place.provider.script(Scene(words=60_000, usage="every"))
    where = urlsplit(place.running.base_url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect((where.hostname, where.port))
    body = json.dumps({**json.loads(GOOD), "stream": True, "max_tokens": 60_000}).encode()
    sock.sendall(place.head(f"Content-Length: {len(body)}") + body)
    ledger = LedgerFile(place.running.data_dir)
    async with asyncio.timeout(60):
        while not ledger.open_holds():  # noqa: ASYNC110  (another process)
            await asyncio.sleep(0.05)
    most = before
    async with asyncio.timeout(60):
        while ledger.open_holds():
            await asyncio.sleep(0.2)
            found = await sample(place.running, 0)
            most = max(most, found, key=lambda each: each.rss_mib)
    assert most.rss_mib - before.rss_mib < 24, "the answer was kept in memory"
    (row,) = [row for row in ledger.calls().values() if row.output_tokens > 1000]
    assert row.outcome == "client_left"
    # What the provider delivered before it was left is charged, and said by itself.
    (booked,) = [each for each in place.provider.books if each.completion_tokens > 1000]
    booked.completion_tokens, booked.finished = row.output_tokens, True
    async with asyncio.timeout(20):
        while (after := await sample(place.running, 0)).fds > before.fds + 1:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert after.tasks <= before.tasks + 1
    sock.close()
    await place.works()


async def test_clients_that_leave_at_any_stage(place: Place) -> None:
    chance = seed_of_run()

    async def leave(number: int) -> None:
        caller = Caller(place.running.base_url, place.key)
        body = chat("one two", stream=chance.random() < 0.5, user=f"l{number}")
        cut_at = chance.randrange(300) if chance.random() < 0.3 else None
        await caller.ask(body, drop_at=chance.choice((0, 1, 100, 500, 1500)), cut_at=cut_at)
        caller.drop()

    for begin in range(0, LEAVERS, 20):
        await asyncio.gather(*(leave(begin + at) for at in range(20)))
    await LedgerFile(place.running.data_dir).settled()
    books_agree(place.running, place.provider)
    await place.works()


def _own_address() -> str:
    """This machine's address in its network; '' without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return ""
        found: str = asked.getsockname()[0]
    return "" if found.startswith("127.") else found


@pytest.mark.skipif(not _own_address(), reason="this machine has no address but loopback's")
async def test_one_address_has_so_many_connections(folder: Path, tmp_path: Path) -> None:
    most, address = 20, _own_address()
    server = f'[server]\nhost = "0.0.0.0"\nport = 0\nconnections_per_address_max = {most}\n'
    async with PlayedProvider() as provider:
        config = config_for(provider, server)
        with appliance(tmp_path / "data", config, program=folder / "turnpike") as running:
            port = urlsplit(running.base_url).port
            opened = [await asyncio.open_connection(address, port) for _ in range(most)]
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            error = refusal(await reader.read(), 429)
            assert error["code"] == "too_many_connections"
            writer.close()
            # Those that are there go on, and this machine itself is never counted.
            opened[0][1].write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await opened[0][0].readline()).startswith(b"HTTP/1.1 200 ")
            assert (await asyncio.to_thread(ask, running, "/readyz")).status_code == 200
            for _, each in opened:
                sock = each.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.close()
            async with asyncio.timeout(10):
                status = b"429"
                while b"200" not in status:
                    reader, writer = await asyncio.open_connection(address, port)
                    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
                    status = await reader.readline()
                    writer.close()
            assert running.stop() == 0
