"""The HTTP side: one provider's pooled client. HTTP/1.1 on asyncio's protocols, and httptools.

A request is written to a connection once. It is written to a kept connection only when the other
side has, by then, neither closed it nor said anything (the system is asked in the same breath). A
connection that breaks after that may have carried the request to a provider that is at work on it,
so a POST then fails and what happens next is the gateway's decision. A GET that was sent on a kept
connection and met its end before any byte of an answer is sent once more, on a new one: it changes
nothing over there (RFC 9110, section 9.2.2).
"""

import asyncio
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from plugins.contract import AdapterError, FailureKind
from plugins.http import tls
from plugins.http.exchange import Exchange
from plugins.http.pool import Pool
from plugins.http.proxy import Origin, default_port, proxy_for
from plugins.http.request import HttpRequest, Route, lines

__all__ = ["Client", "Exchange", "HttpRequest"]

CONNECT_S_MAX = 5.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
REFUSAL_BYTES_MAX = 64 * 1024
# Targets with an id in them are each asked for a few times only.
_ROUTES_MAX = 256


class Client:
    """One provider's connections, pooled. It never follows a redirect, asks for no encoding, keeps
    no cookies and sends no key of its own: those are in each request's headers.

    ``hosts`` are patterns (``*.example.com``) of further hosts that whole URLs may name. Hosts that
    are not near are reached through the proxy that the environment names, see ``proxy``.
    """

    def __init__(
        self,
        base_url: str,
        *,
        user_agent: str,
        ca_file: str | None = None,
        headers: Mapping[str, str] | None = None,
        hosts: Sequence[str] = (),
    ) -> None:
        """Raises ValueError, with the setting's name first, for a URL that cannot be used."""
        parts = _checked(base_url)
        self._path = parts.path.rstrip("/")
        self._origin = _origin(parts)
        self._hosts = tuple(hosts)
        self._ca_file = ca_file
        # An encoded answer could unpack to any size.
        own = {"user-agent": user_agent, "accept-encoding": "identity", **(headers or {})}
        self._headers = {name.lower(): value for name, value in own.items()}
        lines(self._headers)
        proxy_for(self._origin)
        self._ca_pem: str | None = None
        self._pools: dict[Origin, Pool] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        self._open = False

    async def start(self) -> None:
        """Read what the connections need. Raises OSError where ``ca_file`` cannot be read."""
        if self._ca_file is not None:
            # Bundles name authorities in any script; only the certificates matter.
            path = Path(self._ca_file)
            self._ca_pem = await asyncio.to_thread(path.read_text, "ascii", "ignore")
        if self._origin.scheme == "https" or self._hosts:
            await asyncio.to_thread(tls.client_context, self._ca_pem)
        self._open = True

    async def close(self) -> None:
        """Close every connection; exchanges in progress fail."""
        self._open = False
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        self._routes.clear()
        # The event loop closes sockets in its next round.
        await asyncio.sleep(0)

    async def reach(self) -> None:
        """Connect to the host, TLS included, and send nothing. Raises AdapterError."""
        by = asyncio.get_running_loop().time() + CONNECT_S_MAX
        connection = await self._pool(self._origin).open(by=by, connect_s_max=CONNECT_S_MAX)
        connection.abort()

    async def fetch(
        self, request: HttpRequest, *, by: float, silence_s: float
    ) -> tuple[Exchange, bytes]:
        """Send a request and read the whole reply, until ``by`` in the loop's time.

        ``silence_s`` is the longest wait that the call allows for anything. The exchange comes back
        closed; its head can still be read. Raises AdapterError for all that goes wrong below HTTP.
        """
        exchange = await self._send(request, by, silence_s, whole=True)
        return exchange, exchange.all_of_it()

    async def stream(self, request: HttpRequest, *, by: float, silence_s: float) -> Exchange:
        """Send a request and wait for the head of the reply; as ``fetch``, but left open."""
        return await self._send(request, by, silence_s, whole=False)

    async def _send(
        self, request: HttpRequest, by: float, silence_s: float, *, whole: bool
    ) -> Exchange:
        route = self._routes.get((request.method, request.target)) or self._route(request)
        data = route.encode(request)
        connection = route.pool.take()
        once_more = connection is not None and request.method == "GET"
        while True:
            if connection is None:
                connection = await route.pool.open(by=by, connect_s_max=CONNECT_S_MAX)
            exchange = Exchange(
                connection,
                whole=whole,
                silence_s=silence_s,
                bytes_max=ANSWER_BYTES_MAX,
                refusal_bytes_max=REFUSAL_BYTES_MAX,
            )
            connection.send(exchange, data)
            try:
                await exchange.begin(by)
            except AdapterError as error:
                if once_more and error.kind is FailureKind.UPSTREAM and not exchange.heard:
                    once_more = False
                    connection = None
                    continue
                raise
            return exchange

    def _route(self, request: HttpRequest) -> Route:
        """Where a request goes. Raises AdapterError for one that leads elsewhere."""
        if not self._open:
            raise AdapterError(FailureKind.UPSTREAM, "the provider's adapter is not open")
        if request.target.startswith("/"):
            origin, target = self._origin, self._path + request.target
        else:
            origin, target = self._elsewhere(request.target)
        route = Route(self._pool(origin), request.method, target, self._headers)
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        self._routes[request.method, request.target] = route
        return route

    def _elsewhere(self, url: str) -> tuple[Origin, str]:
        """The origin and target of a whole URL on one of our hosts."""
        try:
            parts = urlsplit(url)
            origin = _origin(parts)
        except ValueError:
            raise _foreign(url[:100]) from None
        known = origin.scheme == "https" and any(
            fnmatchcase(origin.host, each) for each in self._hosts
        )
        # ``urlsplit`` skips over some characters; a URL that has them is nothing a provider means.
        odd = "@" in parts.netloc or any(char in url for char in "\\\t\r\n ")
        if odd or (origin != self._origin and not known):
            raise _foreign(origin.host)
        return origin, parts._replace(scheme="", netloc="", path=parts.path or "/").geturl()

    def _pool(self, origin: Origin) -> Pool:
        pool = self._pools.get(origin)
        if pool is None:
            try:
                proxy = proxy_for(origin)
            except ValueError as error:
                raise AdapterError(
                    FailureKind.CONNECT, "the provider could not be reached", detail=str(error)
                ) from None
            context = tls.client_context(self._ca_pem) if origin.scheme == "https" else None
            pool = self._pools[origin] = Pool(origin, proxy, context)
        return pool


def _checked(base_url: str) -> SplitResult:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"base_url: expected http:// or https:// and a host, found {base_url!r}")
    if parts.username or parts.password:
        raise ValueError("base_url: holds a password; give the key as api_key")
    try:
        _origin(parts)
    except ValueError as error:
        raise ValueError(f"base_url: {error}") from None
    return parts


def _origin(parts: SplitResult) -> Origin:
    """Raises ValueError for a port that is none, or a host that no name or address can be."""
    host = (parts.hostname or "").lower()
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if not host or any(char in host for char in "\\ \t\r\n") or not host.isprintable():
        raise ValueError("expected a host")
    port = default_port(parts.scheme) if parts.port is None else parts.port
    return Origin(parts.scheme, host, port)


def _foreign(host: str) -> AdapterError:
    return AdapterError(
        FailureKind.PROTOCOL,
        "the provider's answer leads to another host",
        detail=f"host {host!r}",
    )
