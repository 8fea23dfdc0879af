"""URLs of callers: what may be read, and that nothing else is touched (bar B12)."""

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from plugins.contract import FailureKind
from plugins.http import fetch as fetch_module
from plugins.http import tls
from plugins.http.dial import Address
from plugins.http.fetch import Fetcher
from tests.plugins.http.hostile_urls import NAMES, urls
from tests.plugins.http.raw import FAR, Line, RawServer, fails_as

PNG = b"\x89PNG\r\n\x1a\n" + b"picture"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


async def resolve(host: str, port: int) -> Sequence[str]:
    """As the system does it: numbers in odd forms are addresses too (inet_aton)."""
    if host in NAMES:
        return NAMES[host]
    try:
        return [socket.inet_ntoa(socket.inet_aton(host))]
    except OSError:
        raise socket.gaierror(f"{host} is not known") from None


@contextlib.asynccontextmanager
async def canaries() -> AsyncIterator[tuple[int, list[str]]]:
    """A port of both loopbacks, and who knocked there."""
    knocks: list[str] = []

    def knock(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks.append("knock")
        writer.close()

    async with await asyncio.start_server(knock, "127.0.0.1", 0) as first:
        port: int = first.sockets[0].getsockname()[1]
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(OSError):  # no IPv6 here, or the port is taken there
                await stack.enter_async_context(await asyncio.start_server(knock, "::1", port))
            yield port, knocks


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Address]]:
    """What would have been connected to; nothing is."""
    found: list[Sequence[Address]] = []

    async def dial(_origin: object, addresses: Sequence[Address], *_rest: object) -> object:
        found.append(addresses)
        raise OSError("not in a test")

    monkeypatch.setattr(fetch_module, "dial", dial)
    return found


async def test_nothing_of_the_corpus_reaches_anything(dialled: list[Sequence[Address]]) -> None:
    assert len(urls()) >= 100
    fetcher = Fetcher((), "Turnpike/test", resolve=resolve)
    async with canaries() as (port, knocks):
        for url in urls():
            error = await fails_as(
                FailureKind.BAD_REQUEST, fetcher(url.replace("{port}", str(port)))
            )
            assert error.message.startswith("The URL cannot be read: ")
            # One whose host is public and stays so is allowed to be dialled, and only there.
            for addresses in dialled:
                assert [each.where for each in addresses] == [("93.184.216.34", 80)], url
        assert knocks == []
        assert dialled, "what is public is not refused"


async def test_corpus_with_the_system_s_own_resolver() -> None:
    """No spy in the way: real sockets, where the address is this machine's own."""
    fetcher = Fetcher((), "Turnpike/test")
    async with canaries() as (port, knocks):
        for url in urls():
            # Others would ask the network's name server, or knock at a host of the Internet.
            if "{port}" in url and "93.184" not in url and ".example" not in url:
                await fails_as(FailureKind.BAD_REQUEST, fetcher(url.replace("{port}", str(port))))
        assert knocks == []


async def test_name_that_changes_its_mind(dialled: list[Sequence[Address]]) -> None:
    answers = [["93.184.216.34"], ["127.0.0.1"], ["127.0.0.1"]]
    asked = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    fetcher = Fetcher((), "Turnpike/test", resolve=rebinding)
    await fails_as(FailureKind.BAD_REQUEST, fetcher("http://rebind.example/"))
    assert asked == ["rebind.example"], "the name is asked for once"
    assert dialled == [[Address(socket.AF_INET, ("93.184.216.34", 80))]]
    # The next call asks anew, and believes nothing from before.
    error = await fails_as(FailureKind.BAD_REQUEST, fetcher("http://rebind.example/"))
    assert "not public" in error.message
    assert len(dialled) == 1


async def answer_png(line: Line) -> None:
    await line.request()
    await line.answer(PNG, head="content-type: image/png\r\n")


async def test_allowed_network_is_reached_on_any_port() -> None:
    heard = []

    async def play(line: Line) -> None:
        heard.append(await line.request())
        await line.answer(PNG, head="content-type: image/png\r\n")
        await line.gone()

    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def rebinding(host: str, port: int) -> Sequence[str]:
        return next(answers)

    async with RawServer(play) as server:
        fetcher = Fetcher(LOOPBACK, "Turnpike/test", resolve=rebinding)
        url = f"http://Files.Example:{server.port}/a%20b/é?x=1#part"
        media = await fetcher(url)
        assert (media.data, media.url, media.media_type) == (PNG, url, "image/png")
        assert heard[0] == (
            "GET /a%20b/%C3%A9?x=1 HTTP/1.1",
            {
                "host": f"files.example:{server.port}",
                "user-agent": "Turnpike/test",
                "accept": "*/*",
                "accept-encoding": "identity",
                "connection": "close",
            },
            b"",
        )
        await server.until(lambda server: server.open == 0)


async def test_allowed_network_does_not_allow_its_neighbours() -> None:
    fetcher = Fetcher((ipaddress.ip_network("10.0.0.0/24"),), "Turnpike/test", resolve=resolve)
    async with canaries() as (port, knocks):
        for url in ("http://10.0.1.1/", f"http://127.0.0.1:{port}/", "http://mixed.example/"):
            error = await fails_as(FailureKind.BAD_REQUEST, fetcher(url))
            assert "not public" in error.message
        assert knocks == []


async def test_tls_asks_for_the_name_at_the_checked_address(
    monkeypatch: pytest.MonkeyPatch, far_certificate: Path, far_authority: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(far_certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    async def here(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with RawServer(answer_png, context) as server:
        fetcher = Fetcher(LOOPBACK, "Turnpike/test", resolve=here)
        url = f"https://{FAR}:{server.port}/a.png"
        await fails_as(FailureKind.BAD_REQUEST, fetcher(url))
        trusting = ssl.create_default_context(cafile=str(far_authority))
        monkeypatch.setattr(tls, "client_context", lambda: trusting)
        assert (await fetcher(url)).data == PNG
        # The certificate is for another name.
        await fails_as(FailureKind.BAD_REQUEST, fetcher(url.replace(FAR, "other.example")))
        assert names == [FAR, FAR, "other.example"]


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with canaries() as (port, knocks), RawServer(answer_png) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        fetcher = Fetcher(LOOPBACK, "Turnpike/test", resolve=resolve)
        assert (await fetcher(f"http://127.0.0.1:{server.port}/")).data == PNG
        assert knocks == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with canaries() as (port, knocks):

        async def play(line: Line) -> None:
            await line.request()
            await line.answer(b"", status, f"location: http://127.0.0.1:{port}/\r\n")

        async with RawServer(play) as server:
            fetcher = Fetcher(LOOPBACK, "Turnpike/test")
            error = await fails_as(
                FailureKind.BAD_REQUEST, fetcher(f"http://127.0.0.1:{server.port}/")
            )
            assert "redirects are not followed" in error.message
            assert knocks == []


SECRET = b"db-password-of-an-internal-service"


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 500 %b\r\ncontent-length: 34\r\n\r\n%b",
        b"HTTP/1.1 401 No\r\nwww-authenticate: %b\r\ncontent-length: 34\r\n\r\n%b",
        b"%b %b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n%b %b",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html; x=%b\r\ncontent-length: 34\r\n\r\n%b",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nx: %b\r\ncontent-length: 34\r\n\r\n%b",
    ],
    ids=["error", "login", "other_protocol", "short", "html", "encoded"],
)
async def test_what_an_internal_service_says_stays_inside(reply: bytes) -> None:
    async def play(line: Line) -> None:
        await line.request()
        await line.say(reply % (SECRET, SECRET))

    async with RawServer(play) as server:
        fetcher = Fetcher(LOOPBACK, "Turnpike/test")
        error = await fails_as(FailureKind.BAD_REQUEST, fetcher(f"http://127.0.0.1:{server.port}/"))
        assert SECRET.decode() not in error.message
        assert not any(word in error.message for word in ("500", "401", "gzip"))


async def test_size_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "BYTES_MAX", 1024 * 1024)

    async def play(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
        while True:
            await line.say(b"x" * 65_536)

    async with RawServer(play) as server:
        fetcher = Fetcher(LOOPBACK, "Turnpike/test")
        error = await fails_as(FailureKind.BAD_REQUEST, fetcher(f"http://127.0.0.1:{server.port}/"))
        assert "more than 1 MiB" in error.message
        await server.until(lambda server: server.open == 0)


@pytest.mark.parametrize("stage", ["head", "body", "drip"])
async def test_time_has_a_limit(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    monkeypatch.setattr(fetch_module, "SECONDS_MAX", 0.3)

    async def play(line: Line) -> None:
        await line.request()
        if stage != "head":
            await line.say(b"HTTP/1.1 200 OK\r\n\r\n" + PNG)
        while stage == "drip":
            await line.say(b"x")
            await asyncio.sleep(0.01)
        await line.gone()

    async with RawServer(play) as server:
        fetcher = Fetcher(LOOPBACK, "Turnpike/test")
        await fails_as(FailureKind.BAD_REQUEST, fetcher(f"http://127.0.0.1:{server.port}/"))
        await server.until(lambda server: server.open == 0)


async def test_slow_name_server_has_the_same_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "SECONDS_MAX", 0.1)

    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    fetcher = Fetcher((), "Turnpike/test", resolve=never)
    await fails_as(FailureKind.BAD_REQUEST, fetcher("http://slow.example/"))


async def test_leaving_closes_the_connection() -> None:
    reached = asyncio.Event()

    async def play(line: Line) -> None:
        await line.request()
        reached.set()
        await line.gone()

    async with RawServer(play) as server:
        fetcher = Fetcher(LOOPBACK, "Turnpike/test")
        task = asyncio.ensure_future(fetcher(f"http://127.0.0.1:{server.port}/"))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda server: server.open == 0)


@pytest.mark.parametrize(
    ("url", "data", "kind"),
    [
        (f"data:image/png;base64,{base64.b64encode(PNG).decode()}", PNG, "image/png"),
        (f"DATA:;base64,{base64.b64encode(PNG).decode()}", PNG, "image/png"),
        (f"data:image/gif;base64,{base64.b64encode(PNG).decode()}", PNG, "image/png"),
        (f"data:image/png; base64,{base64.b64encode(PNG).decode()}", PNG, "image/png"),
        ("data:image/png;base64,iVBORw0KGgpwaWN0dXJl%0A".replace("%0A", ""), PNG, "image/png"),
        ("data:image/png;base64,iVBORw0KGgpwaWN0dXJ%6c", PNG, "image/png"),
        ("data:image/png,%89PNG%0D%0A%1A%0Apicture", PNG, "image/png"),
        ("data:,a%20b+c", b"a b+c", "text/plain"),
        ("data:text/plain;charset=utf-8,h%C3%A9", "hé".encode(), "text/plain"),
        ("data:,", b"", "text/plain"),
    ],
)
async def test_data_urls(url: str, data: bytes, kind: str) -> None:
    media = await Fetcher((), "Turnpike/test")(url)
    assert (media.data, media.media_type, media.url) == (data, kind, None)


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:image/png",
        "data:image/png;base64",
        "data:image/png;base64,iVBORw0KGgpwaWN0dXJ",
        "data:image/png;base64,iVBO Rw0K",
        "data:image/png;base64,!!!!",
        "data:image/png;base64,é",
        "data:image/png,hello",
        "data:text/html,<b>x</b>",
        "data:,<!DOCTYPE html><p>",
        f"data:{'x' * 600},",
    ],
)
async def test_data_urls_that_are_none(url: str) -> None:
    await fails_as(FailureKind.BAD_REQUEST, Fetcher((), "Turnpike/test")(url))


@pytest.mark.parametrize("extra", [0, 1])
async def test_data_urls_have_the_same_limit(monkeypatch: pytest.MonkeyPatch, extra: int) -> None:
    monkeypatch.setattr(fetch_module, "BYTES_MAX", 1024 * 1024)
    data = PNG.ljust(1024 * 1024 + extra, b"x")
    coded = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    quoted = "data:image/png," + "".join(f"%{byte:02x}" for byte in data)
    fetcher = Fetcher((), "Turnpike/test")
    for url in (coded, quoted):
        if extra:
            await fails_as(FailureKind.BAD_REQUEST, fetcher(url))
        else:
            assert (await fetcher(url)).data == data
