"""What is written: one request, in one piece, that nothing in it can break out of."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.contract import AdapterError, FailureKind
from plugins.http.client import Client, HttpRequest
from plugins.http.connection import Connection
from tests.plugins.http.raw import ASK, Line, RawServer, fails_as, fetch, started

Heard = list[tuple[str, dict[str, str], bytes]]


def listening(heard: Heard) -> RawServer:
    async def play(line: Line) -> None:
        while True:
            heard.append(await line.request())
            await line.answer()

    return RawServer(play)


async def test_request_as_it_is_written() -> None:
    heard: Heard = []
    async with listening(heard) as server:
        client = await started(f"{server.base_url}/v1/", headers={"X-Title": "Turnpike"})
        own = (("content-type", "application/json"), ("authorization", "Bearer k"))
        await fetch(client, HttpRequest(target="/chat?a=b", headers=own, body=b'{"a":1}'))
        await fetch(client, HttpRequest(target="/models", method="GET"))
        await fetch(client, HttpRequest(target="/jobs/1", method="DELETE"))
        assert heard[0] == (
            "POST /v1/chat?a=b HTTP/1.1",
            {
                "host": f"127.0.0.1:{server.port}",
                "user-agent": "Turnpike/test",
                "accept-encoding": "identity",
                "x-title": "Turnpike",
                "content-type": "application/json",
                "authorization": "Bearer k",
                "content-length": "7",
            },
            b'{"a":1}',
        )
        assert heard[1][0] == "GET /v1/models HTTP/1.1"
        assert "content-length" not in heard[1][1]
        assert (heard[2][0], heard[2][1]["content-length"]) == ("DELETE /v1/jobs/1 HTTP/1.1", "0")
        await client.close()


async def test_request_s_header_wins_over_the_client_s() -> None:
    heard: Heard = []
    async with listening(heard) as server:
        client = await started(server.base_url, headers={"x-title": "of the client"})
        mine = (("x-title", "of the request"), ("host", "signed.example"))
        await fetch(client, HttpRequest(target="/", headers=mine))
        await fetch(client, HttpRequest(target="/"))
        assert [each[1]["x-title"] for each in heard] == ["of the request", "of the client"]
        assert heard[0][1]["host"] == "signed.example"
        await client.close()


async def test_request_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: Heard = []
    writes: list[bytes] = []
    made = Connection.connection_made

    class Watched:
        """The transport, with an ear on ``write``."""

        def __init__(self, transport: asyncio.Transport) -> None:
            self._transport = transport

        def write(self, data: bytes) -> None:
            writes.append(data)
            self._transport.write(data)

        def __getattr__(self, name: str) -> object:
            return getattr(self._transport, name)

    def watched(connection: Connection, transport: asyncio.Transport) -> None:
        made(connection, Watched(transport))  # type: ignore[arg-type]  # it passes all else on

    monkeypatch.setattr(Connection, "connection_made", watched)
    async with listening(heard) as server:
        client = await started(server.base_url)
        await fetch(client, HttpRequest(target="/", body=b"x" * 100_000))
        assert len(writes) == 1
        assert heard[0][2] == b"x" * 100_000
        await client.close()


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", "Bearer k\r\nx-evil: 1"),
        ("authorization", "Bearer k\n"),
        ("authorization", "Bearer k\r"),
        ("authorization", "Bearer \0"),
        ("authorization", "Bearer schlüssel"),
        ("x-a\r\nx-evil", "1"),
        ("x-a: 1\r\nx-evil", "1"),
        ("x a", "1"),
        ("", "1"),
    ],
)
async def test_header_cannot_end_its_line(header: tuple[str, str]) -> None:
    heard: Heard = []
    async with listening(heard) as server:
        client = await started(server.base_url)
        request = HttpRequest(target="/", headers=(header,))
        error = await fails_as(FailureKind.BAD_REQUEST, fetch(client, request))
        assert "Bearer" not in error.message + error.detail
        assert (heard, server.total) == ([], 0)
        with pytest.raises(ValueError, match="header"):
            Client(server.base_url, user_agent="t", headers=dict([header]))
        await client.close()


@pytest.mark.parametrize(
    "request_",
    [
        HttpRequest(target="/a\r\nx-evil: 1"),
        HttpRequest(target="/a\nb"),
        HttpRequest(target="/a\0b"),
        HttpRequest(target="/a", method="GET /b HTTP/1.1\r\nx-evil: 1\r\n\r\nGET"),
        HttpRequest(target="/a", method="get"),
        HttpRequest(target="/a", headers=(("content-length", "100"),)),
        HttpRequest(target="/a", headers=(("transfer-encoding", "chunked"),)),
    ],
    ids=["crlf", "lf", "nul", "method", "lower", "length", "encoding"],
)
async def test_request_cannot_hold_another(request_: HttpRequest) -> None:
    heard: Heard = []
    async with listening(heard) as server:
        client = await started(server.base_url)
        await fails_as(FailureKind.PROTOCOL, fetch(client, request_))
        assert heard == []
        await client.close()


text = st.text(st.characters(codec="utf-8"), max_size=30)


@given(target=text, name=text, value=text)
@settings(max_examples=60)
def test_whatever_is_asked_for_is_one_request_or_none(target: str, name: str, value: str) -> None:
    request = HttpRequest(target=f"/{target}", headers=((name, value),), body=b"{}")
    heard: Heard = []

    async def run() -> None:
        async with listening(heard) as server:
            client = await started(server.base_url)
            try:
                await fetch(client, request)
            except AdapterError:
                assert heard == []
            else:
                line, headers, body = heard[0]
                assert (len(heard), body) == (1, b"{}")
                assert (line[:6], line[-9:], line.count(" ")) == ("POST /", " HTTP/1.1", 2)
                assert len(headers) == (5 if name in headers else 4)
            await client.close()

    asyncio.run(run())


async def test_target_with_letters_and_spaces_is_quoted() -> None:
    heard: Heard = []
    async with listening(heard) as server:
        client = await started(server.base_url)
        await fetch(client, HttpRequest(target="/models/é x?q=%20a b#part"))
        assert heard[0][0] == "POST /models/%C3%A9%20x?q=%20a%20b HTTP/1.1"
        await client.close()


async def test_whole_url_leads_to_our_hosts_only() -> None:
    heard: Heard = []
    async with listening(heard) as server:
        client = await started(f"{server.base_url}/v1", hosts=("*.example.com",))
        url = f"{server.base_url.replace('http', 'HTTP')}/jobs/7?full=1#x"
        await fetch(client, HttpRequest(target=url, method="GET"))
        await fetch(client, HttpRequest(target=server.base_url, method="GET"))
        assert [line for line, _, _ in heard] == ["GET /jobs/7?full=1 HTTP/1.1", "GET / HTTP/1.1"]
        port = server.port
        for url in (
            f"http://127.0.0.2:{port}/",
            f"https://127.0.0.1:{port}/",
            "http://127.0.0.1/",
            f"http://user@127.0.0.1:{port}/",
            f"http://127.0.0.1:{port}\\@x.example.com/",
            f"https://evil.example\\.example.com:{port}/",
            "http://a.example.com/",
            "https://user:pw@a.example.com/",
            "https://a.example.com.evil.example/",
            "https://a.exam\nple.com/",
            "https://[::1/",
            "https://a.example.com:99999/",
            "//127.0.0.1/",
            "ftp://a.example.com/",
            "jobs/7",
            "",
        ):
            # Two slashes are a path here: it stays with the provider.
            if url.startswith("/"):
                await fetch(client, HttpRequest(target=url))
                assert heard.pop()[0] == "POST /v1//127.0.0.1/ HTTP/1.1"
            else:
                await fails_as(FailureKind.PROTOCOL, fetch(client, HttpRequest(target=url)))
        assert len(heard) == 2
        await client.close()


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "provider.example/v1",
        "ftp://provider.example",
        "http://",
        "http://user:secret@provider.example",
        "http://provider.example:99999",
        "http://provider.example:x",
        "http://pro vider.example",
    ],
)
def test_base_url_that_cannot_be_used(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url") as caught:
        Client(base_url, user_agent="t")
    assert "user:secret" not in str(caught.value)


async def test_client_that_is_not_open() -> None:
    client = Client("http://127.0.0.1:9", user_agent="t")
    await fails_as(FailureKind.UPSTREAM, fetch(client, ASK))
