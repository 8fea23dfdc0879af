"""Reads what URLs of callers and providers name, without being led to where they must not go.

A name is resolved once; every address it has must be public or in a network that the operator
allows, and the connection goes to one of those addresses, so a name that changes its mind leads
nowhere else. Redirects are not followed. The environment's proxy is not used: it would resolve the
name by itself, past the check. Where there is no way out but a proxy, URLs cannot be read, and
callers send the data itself.

What a server said other than the content goes to nobody but the log: an internal one might be
asked that way.
"""

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from plugins.contract import AdapterError, FailureKind
from plugins.http import tls
from plugins.http.addresses import IP, is_allowed, is_public, read_address
from plugins.http.connection import Connection, broke
from plugins.http.dial import Address, dial
from plugins.http.exchange import Exchange, too_large
from plugins.http.media_types import NotWhatItSays, media_type
from plugins.http.proxy import default_port
from plugins.http.request import lines
from plugins.http.urls import BadUrl, Target, is_data, read_data, read_url
from plugins.tasks import Media

BYTES_MAX = 20 * 1024 * 1024
SECONDS_MAX = 10.0
# Decoding more than this would keep the event loop from others for milliseconds.
_DECODED_AT_ONCE_MAX = 256 * 1024

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def system_resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, as the system knows them. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


class Fetcher:
    """``plugins.contract.Fetch``. ``allowed`` are networks that may be reached though they are not
    public, on any port; public addresses are reached on the ports of http and https.
    ``bytes_max`` and ``seconds_max`` are for what is larger than a picture.
    """

    def __init__(
        self,
        allowed: Sequence[IPv4Network | IPv6Network],
        user_agent: str,
        *,
        bytes_max: int | None = None,
        seconds_max: float | None = None,
        resolve: Resolve = system_resolve,
    ) -> None:
        self._allowed = tuple(allowed)
        self._bytes_max = BYTES_MAX if bytes_max is None else bytes_max
        self._seconds_max = SECONDS_MAX if seconds_max is None else seconds_max
        self._headers = {
            "user-agent": user_agent,
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "close",
        }
        lines(self._headers)
        self._resolve = resolve

    async def __call__(self, url: str) -> Media:
        """The bytes and their media type; ``url`` is set where there is one to go back to.

        Raises AdapterError (BAD_REQUEST).
        """
        try:
            if is_data(url):
                return await self._decode(url)
            async with asyncio.timeout(self._seconds_max):
                return await self._fetch(url)
        except (BadUrl, NotWhatItSays) as error:
            raise _refused(str(error)) from error
        except TimeoutError as error:
            raise _refused(f"it took more than {self._seconds_max:.0f} s") from error

    async def _decode(self, url: str) -> Media:
        if len(url) > _DECODED_AT_ONCE_MAX:
            said, data = await asyncio.to_thread(read_data, url, self._bytes_max)
        else:
            said, data = read_data(url, self._bytes_max)
        return Media(data=data, media_type=media_type(data, said))

    async def _fetch(self, url: str) -> Media:
        to = read_url(url)
        addresses = [_address(ip, to.origin.port) for ip in await self._addresses(to)]
        context = None
        if to.origin.scheme == "https":
            context = await asyncio.to_thread(tls.client_context)
        try:
            connection = await dial(to.origin, addresses, context, _make)
        except (OSError, ValueError) as error:
            raise _refused("it could not be reached", str(error)) from error
        try:
            exchange = await self._ask(connection, to)
        except AdapterError as error:
            large = error.detail == too_large(self._bytes_max).detail
            most = f"it holds more than {self._bytes_max >> 20} MiB"
            why = most if large else "its answer is no HTTP"
            raise _refused(why, f"{error.message}: {error.detail}") from error
        finally:
            connection.abort()
        data = exchange.all_of_it()
        encoding = exchange.header("content-encoding") or "identity"
        if exchange.status != 200 or encoding != "identity":
            detail = f"HTTP {exchange.status}, content-encoding {encoding}"
            raise _refused("it did not answer with a file; redirects are not followed", detail)
        kind = media_type(data, exchange.header("content-type") or "")
        return Media(data=data, url=url, media_type=kind)

    async def _addresses(self, to: Target) -> list[IP]:
        """Where to connect to: all the addresses of the host, each of them checked."""
        if to.is_address:
            found: Sequence[str] = [to.origin.host]
        else:
            try:
                found = await self._resolve(to.origin.host, to.origin.port)
            except (OSError, UnicodeError) as error:
                raise _refused("its host is not known", str(error)) from error
        addresses = [read_address(each) for each in found]
        if not addresses:
            raise _refused("its host is not known")
        usual = to.origin.port in (default_port("http"), default_port("https"))
        for address in addresses:
            if is_allowed(address, self._allowed):
                continue
            if not is_public(address):
                # The address is not named: it would answer questions about the network.
                raise _refused("it leads to an address that is not public")
            if not usual:
                raise _refused("only ports 80 and 443 are read")
        return addresses

    async def _ask(self, connection: Connection, to: Target) -> Exchange:
        """The answer, whole."""
        if connection.closed:
            raise broke(None)
        head = f"GET {to.target} HTTP/1.1\r\n" + lines({"host": to.origin.netloc, **self._headers})
        exchange = Exchange(
            connection,
            whole=True,
            silence_s=self._seconds_max,
            bytes_max=self._bytes_max,
            refusal_bytes_max=0,
        )
        connection.send(exchange, f"{head}\r\n".encode("ascii"))
        await exchange.begin(float("inf"))
        return exchange


_make = functools.partial(Connection, on_free=Connection.abort, on_lost=lambda _: None)


def _address(ip: IP, port: int) -> Address:
    if isinstance(ip, IPv4Address):
        return Address(socket.AF_INET, (str(ip), port))
    return Address(socket.AF_INET6, (str(ip), port, 0, 0))


def _refused(why: str, detail: str = "") -> AdapterError:
    return AdapterError(FailureKind.BAD_REQUEST, f"The URL cannot be read: {why}.", detail=detail)
