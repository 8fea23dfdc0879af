"""Proxies of the environment, with a small real one; and whose calls go through it."""

import asyncio
import contextlib
import ssl
from base64 import b64encode
from pathlib import Path

import pytest

from plugins.contract import FailureKind
from plugins.http.client import Client
from plugins.http.proxy import Origin, Proxy, is_near, proxy_for
from tests.plugins.http.raw import FAR, Line, RawServer, fails_as, fetch, started, streamed

LOGIN = "user:p@ss word"
AUTHORIZATION = f"Basic {b64encode(LOGIN.encode()).decode()}"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class PlayedProxy:
    """Leads every host to one port of this machine; what it was asked for is in ``heard``."""

    def __init__(self, port: int, authorization: str | None = None, say: bytes = b"") -> None:
        self.port = port
        self.heard: list[tuple[str, dict[str, str]]] = []
        self._authorization = authorization
        self._say = say

    async def play(self, line: Line) -> None:
        first, headers, body = await line.request()
        self.heard.append((first, headers))
        if headers.get("proxy-authorization") != self._authorization:
            await line.say(b"HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n")
            return
        if self._say:
            await line.say(self._say)
            await line.gone()
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            if first.startswith("CONNECT "):
                await line.say(b"HTTP/1.1 200 Connected\r\nvia: played\r\n\r\n")
            else:
                lines = [first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
                writer.write("\r\n".join(lines).encode() + body)
            both = [pump(line.reader, writer), pump(reader, line.writer)]
            await asyncio.gather(*both)
        finally:
            writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def answering(line: Line) -> None:
    while True:
        await line.request()
        await line.answer()


async def far_client(certificate: Path, scheme: str) -> Client:
    """A client of the far host, which only a proxy can reach."""
    return await started(f"{scheme}://{FAR}:8443/v1", ca_file=str(certificate))


@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
async def test_https_goes_through_a_tunnel(
    monkeypatch: pytest.MonkeyPatch, far_certificate: Path, far_authority: Path, login: str | None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(far_certificate)
    heard = []

    async def play(line: Line) -> None:
        while True:
            heard.append(await line.request())
            await line.answer()

    async with RawServer(play, context) as server:
        proxy = PlayedProxy(server.port, AUTHORIZATION if login else None)
        async with RawServer(proxy.play) as proxying:
            user = "user:p%40ss%20word@" if login else ""
            monkeypatch.setenv("HTTPS_PROXY", f"http://{user}127.0.0.1:{proxying.port}")
            client = await far_client(far_authority, "https")
            for _ in range(2):
                assert (await fetch(client))[1] == b"{}"
                assert (await streamed(client))[1] == b"{}"
            (asked,) = proxy.heard
            assert asked[0] == f"CONNECT {FAR}:8443 HTTP/1.1"
            assert asked[1]["host"] == f"{FAR}:8443"
            assert "authorization" not in asked[1]
            assert heard[0][0] == "POST /v1/things HTTP/1.1"
            assert "proxy-authorization" not in heard[0][1]
            await client.close()


@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
async def test_http_is_asked_for_by_its_whole_url(
    monkeypatch: pytest.MonkeyPatch, far_authority: Path, login: str | None
) -> None:
    async with RawServer(answering) as server:
        proxy = PlayedProxy(server.port, AUTHORIZATION if login else None)
        async with RawServer(proxy.play) as proxying:
            user = "user:p%40ss%20word@" if login else ""
            monkeypatch.setenv("http_proxy", f"{user}127.0.0.1:{proxying.port}")
            client = await far_client(far_authority, "http")
            assert (await fetch(client))[1] == b"{}"
            (asked,) = proxy.heard
            assert asked[0] == f"POST http://{FAR}:8443/v1/things HTTP/1.1"
            assert asked[1]["host"] == f"{FAR}:8443"
            await client.close()


async def test_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, far_authority: Path) -> None:
    proxy = PlayedProxy(0, AUTHORIZATION)
    async with RawServer(proxy.play) as proxying:
        monkeypatch.setenv("ALL_PROXY", f"http://user:wrong@127.0.0.1:{proxying.port}")
        client = await far_client(far_authority, "https")
        error = await fails_as(FailureKind.CONNECT, fetch(client))
        assert "407" in error.detail
        assert "wrong" not in error.detail + error.message
        await client.close()


@pytest.mark.parametrize(
    "said",
    [
        b"SOCKS\r\n\r\n",
        b"HTTP/1.1 200 Connected\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 2\r\n\r\n",
        b"HTTP/1.1 200 Connected\r\nx: " + b"y" * 80_000,
        b"HTTP/1.1 200 Connected\r\n\r\n",
    ],
    ids=["other", "surplus", "short", "endless", "no_tls"],
)
async def test_proxy_that_talks_nonsense(
    monkeypatch: pytest.MonkeyPatch, far_authority: Path, said: bytes
) -> None:
    monkeypatch.setattr("plugins.http.client.CONNECT_S_MAX", 0.5)
    async with RawServer(PlayedProxy(0, say=said).play) as proxying:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxying.port}")
        client = await far_client(far_authority, "https")
        await fails_as(FailureKind.CONNECT, fetch(client))
        await proxying.until(lambda server: server.open == 0)
        await client.close()


async def test_near_hosts_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    async with RawServer(answering) as server:
        client = await started(server.base_url)
        assert (await fetch(client))[1] == b"{}"
        await client.close()


@pytest.mark.parametrize(
    "value", ["socks5://h:1", "https://h:1", "http://user:secret@h:x", "http://", "http://:80"]
)
def test_proxy_that_cannot_be_used_is_said_so(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ValueError, match=r"^HTTPS_PROXY: ") as caught:
        Client(f"https://{FAR}", user_agent="t")
    assert "secret" not in str(caught.value)
    Client("https://10.0.0.1", user_agent="t")


def chosen(url_scheme: str, host: str, port: int = 443, **variables: str) -> str | None:
    proxy = proxy_for(Origin(url_scheme, host, port), variables)
    return None if proxy is None else f"{proxy.host}:{proxy.port}"


def test_which_variable_names_the_proxy() -> None:
    assert chosen("https", FAR) is None
    assert chosen("https", FAR, HTTPS_PROXY="http://a:1", HTTP_PROXY="http://b:2") == "a:1"
    assert chosen("http", FAR, HTTPS_PROXY="http://a:1", HTTP_PROXY="http://b:2") == "b:2"
    assert chosen("http", FAR, HTTPS_PROXY="http://a:1") is None
    assert chosen("http", FAR, ALL_PROXY="http://c:3") == "c:3"
    assert chosen("https", FAR, https_proxy="a:1", HTTPS_PROXY="http://b:2") == "a:1"
    assert chosen("https", FAR, https_proxy="http://[::1]:8080/") == "::1:8080"
    assert chosen("http", FAR, HTTP_PROXY="http://a:1", REQUEST_METHOD="GET") is None


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        (FAR, "*", True),
        (FAR, FAR, True),
        (FAR, "PROVIDER.Example", True),
        (FAR, "example", True),
        (FAR, ".example", True),
        (FAR, "*.example", True),
        (FAR, "other, example", True),
        (FAR, "other example", True),
        (FAR, f"{FAR}:443", True),
        (FAR, f"{FAR}:80", False),
        (FAR, "ple", False),
        (FAR, "rovider.example", False),
        (FAR, f"api.{FAR}", False),
        (FAR, ",. ,", False),
        ("9.9.9.9", "9.9.9.0/24", True),
        ("9.9.9.9", "9.9.9.9", True),
        ("9.9.9.9", "9.9.8.0/24", False),
        ("2620:fe::9", "2620:fe::/32", True),
        ("2620:fe::9", "[2620:fe::9]:443", True),
    ],
)
def test_exceptions(host: str, no_proxy: str, direct: bool) -> None:
    assert (chosen("https", host, HTTPS_PROXY="http://p:1", NO_PROXY=no_proxy) is None) == direct


def test_near() -> None:
    near = ("localhost", "x.localhost", "127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "fd00::1")
    assert all(is_near(host) for host in near)
    assert not any(is_near(host) for host in (FAR, "9.9.9.9", "2620:fe::9", "localhost.example"))


def test_login_is_in_no_representation() -> None:
    assert "secret" not in repr(Proxy("h", 1, "Basic secret"))
