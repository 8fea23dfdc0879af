"""Reaching a server: addresses in turn, TLS that is never weaker, failures that say where."""

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from plugins.contract import FailureKind
from plugins.http import dial as dial_module
from plugins.http import pool as pool_module
from plugins.http import tls
from plugins.http.client import Client
from plugins.http.connection import Connection
from plugins.http.dial import Address, dial, resolve
from plugins.http.proxy import Origin
from tests.plugins.http.raw import Line, RawServer, fails_as, fetch, started

make = functools.partial(Connection, on_free=Connection.abort, on_lost=lambda _: None)


async def answering(line: Line) -> None:
    while True:
        await line.request()
        await line.answer()


def local(port: int) -> Address:
    return Address(socket.AF_INET, ("127.0.0.1", port))


@pytest.fixture
def dead() -> Iterator[Address]:
    """An address that refuses: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield local(held.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that never answers: a listener whose queue is full, so that SYNs are dropped."""
    with ExitStack() as stack:
        held = stack.enter_context(socket.socket())
        held.bind(("127.0.0.1", 0))
        held.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(held.getsockname())
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.2)
        try:
            probe.connect(held.getsockname())
        except TimeoutError:
            yield local(held.getsockname()[1])
        else:
            pytest.skip("this system queues connections without end")


def named(monkeypatch: pytest.MonkeyPatch, *found: Address) -> list[str]:
    """Every name has these addresses; the names that were asked for."""
    asked = []

    async def answer(host: str, port: int) -> Sequence[Address]:
        asked.append(host)
        return found

    monkeypatch.setattr(pool_module, "resolve", answer)
    return asked


async def test_next_address_is_tried_at_once_where_one_refuses(
    monkeypatch: pytest.MonkeyPatch, dead: Address
) -> None:
    monkeypatch.setattr(dial_module, "STAGGER_S", 30.0)
    async with RawServer(answering) as server:
        named(monkeypatch, dead, dead, local(server.port))
        client = await started("http://provider.localhost")
        assert (await fetch(client))[0].status == 200
        await client.close()


async def test_next_address_is_tried_soon_where_one_is_silent(
    monkeypatch: pytest.MonkeyPatch, silent: Address
) -> None:
    async with RawServer(answering) as server:
        named(monkeypatch, silent, local(server.port))
        client = await started("http://provider.localhost")
        began = time.monotonic()
        await fetch(client)
        assert time.monotonic() - began < 4.0
        assert server.total == 1
        await client.close()


async def test_address_that_was_slow_can_still_win(
    monkeypatch: pytest.MonkeyPatch, dead: Address
) -> None:
    monkeypatch.setattr(dial_module, "STAGGER_S", 0.0)
    async with RawServer(answering) as server:
        named(monkeypatch, local(server.port), dead, local(server.port))
        client = await started("http://provider.localhost")
        for _ in range(3):
            await fetch(client)
        await client.close()
        await server.until(lambda server: server.open == 0)


async def test_all_addresses_fail(
    monkeypatch: pytest.MonkeyPatch, dead: Address, silent: Address
) -> None:
    monkeypatch.setattr("plugins.http.client.CONNECT_S_MAX", 0.5)
    named(monkeypatch, dead, dead)
    client = await started("http://provider.localhost")
    error = await fails_as(FailureKind.CONNECT, fetch(client))
    assert "provider.localhost" not in error.message
    named(monkeypatch, dead, silent)
    await fails_as(FailureKind.CONNECT, fetch(client))
    named(monkeypatch, silent)
    await fails_as(FailureKind.CONNECT, fetch(client))
    await client.close()


async def test_name_is_looked_up_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch, dead: Address
) -> None:
    async def once(line: Line) -> None:
        await line.request()
        await line.answer(head="connection: close\r\n")

    async with RawServer(once) as server:
        asked = named(monkeypatch, local(server.port))
        client = await started("http://provider.localhost")
        for _ in range(3):
            await fetch(client)
        assert (asked, server.total) == (["provider.localhost"], 3)
        await client.close()
        # A failure is no reason to believe the addresses any longer.
        asked = named(monkeypatch, dead)
        client = await started("http://provider.localhost")
        for _ in range(2):
            await fails_as(FailureKind.CONNECT, fetch(client))
        assert len(asked) == 2
        await client.close()


async def test_name_that_does_not_exist() -> None:
    for host in ("nowhere.invalid", "a" * 64 + ".invalid", "x..invalid"):
        client = await started(f"http://{host}")
        await fails_as(FailureKind.CONNECT, fetch(client))
        await client.close()


def test_families_take_turns() -> None:
    found = [Address(family, (n,)) for n, family in enumerate((10, 10, 10, 2, 2))]
    assert [address.where[0] for address in dial_module._in_turns(found)] == [0, 3, 1, 4, 2]


async def test_addresses_of_this_machine() -> None:
    assert ("127.0.0.1", 80) in [address.where for address in await resolve("127.0.0.1", 80)]


async def test_tls_with_an_authority_of_one_s_own(tls_server: ssl.SSLContext, ca_file: str) -> None:
    async with RawServer(answering, tls_server) as server:
        client = await started(server.base_url, ca_file=ca_file)
        for _ in range(3):
            assert (await fetch(client))[1] == b"{}"
        assert server.total == 1
        await client.close()
        await server.until(lambda server: server.open == 0)


async def test_ca_file_with_names_in_any_script(
    tls_server: ssl.SSLContext, ca_file: str, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    certificate = await asyncio.to_thread(Path(ca_file).read_text)
    bundle.write_text(f"# Főtanúsítvány\n{certificate}", encoding="utf-8")
    async with RawServer(answering, tls_server) as server:
        client = await started(server.base_url, ca_file=str(bundle))
        assert (await fetch(client))[1] == b"{}"
        await client.close()


async def test_certificate_of_an_unknown_authority(tls_server: ssl.SSLContext) -> None:
    async with RawServer(answering, tls_server) as server:
        client = await started(server.base_url)
        error = await fails_as(FailureKind.CONNECT, fetch(client))
        assert "certificate" in error.detail
        await client.close()


async def test_certificate_of_another_host(tls_server: ssl.SSLContext, ca_file: str) -> None:
    heard = []

    async def play(line: Line) -> None:
        heard.append(await line.request())

    async with RawServer(play, tls_server) as server:
        url = server.base_url.replace("127.0.0.1", "localhost")
        client = await started(url, ca_file=ca_file)
        await fails_as(FailureKind.CONNECT, fetch(client))
        assert heard == []
        await client.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_tls_before_1_2_is_refused(tls_server: ssl.SSLContext, ca_file: str) -> None:
    tls_server.set_ciphers("ALL:@SECLEVEL=0")
    tls_server.minimum_version = ssl.TLSVersion.TLSv1
    tls_server.maximum_version = ssl.TLSVersion.TLSv1_1
    async with RawServer(answering, tls_server) as server:
        client = await started(server.base_url, ca_file=ca_file)
        await fails_as(FailureKind.CONNECT, fetch(client))
        await client.close()


async def test_server_that_speaks_no_tls_gets_no_plain_request() -> None:
    heard = b""

    async def play(line: Line) -> None:
        nonlocal heard
        heard += await line.reader.read(65_536)
        await line.answer()

    async with RawServer(play) as server:
        client = await started(server.base_url.replace("http:", "https:"))
        await fails_as(FailureKind.CONNECT, fetch(client))
        assert heard.startswith(b"\x16\x03"), "a TLS handshake, and nothing else"
        assert b"HTTP" not in heard
        await client.close()


async def test_server_name_is_sent_without_its_last_dot(
    tls_server: ssl.SSLContext, ca_file: str
) -> None:
    names: list[str | None] = []
    tls_server.sni_callback = lambda _socket, name, _context: names.append(name)
    context = tls.client_context(await asyncio.to_thread(Path(ca_file).read_text))
    async with RawServer(answering, tls_server) as server:
        for host in ("provider.localhost.", "127.0.0.1"):
            origin = Origin("https", host, server.port)
            try:
                connection = await dial(origin, [local(server.port)], context, make)
            except ssl.SSLError:
                continue
            connection.abort()
        await asyncio.sleep(0)
    assert names == ["provider.localhost", None], "an address is no name (RFC 6066, section 3)"


async def test_ca_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    with pytest.raises(OSError, match=r"ca\.pem"):
        await started("https://provider.example", ca_file=str(path))
    for text in ("no certificate", ""):
        path.write_text(text)
        with pytest.raises(OSError, match=r"cert|PEM|NO_|empty"):
            await started("https://provider.example", ca_file=str(path))


def test_contexts_check_everything() -> None:
    context = tls.client_context()
    assert context is tls.client_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_certifi_stands_in_where_the_system_has_no_authorities(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{tmp_path}/none.pem")
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}")
    context = tls.client_context.__wrapped__()
    assert len(context.get_ca_certs()) > 50


async def test_connecting_uses_no_more_than_its_share_of_sockets(
    monkeypatch: pytest.MonkeyPatch, silent: Address
) -> None:
    """A race that is left closes what it opened."""
    client: Client = await started("http://provider.localhost")
    named(monkeypatch, silent, silent, silent)
    monkeypatch.setattr(dial_module, "STAGGER_S", 0.01)
    before = len(asyncio.all_tasks())
    task = asyncio.ensure_future(fetch(client))
    await asyncio.sleep(0.1)
    assert len(asyncio.all_tasks()) == before + 4, "the call, and a try at each address"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == before
    await client.close()
