"""The HTTP side: one provider's pooled client, and one exchange with it.

Three things about pyreqwest 0.15 that this file is built around (its Rust source and our tests):

- ``build_streamed`` reads ahead, up to its buffer limit, before it hands over the response. A
  stream therefore asks for a limit of 0, or its first event would wait for 64 KiB.
- Leaving the response (``__aexit__``) closes the connection at once when the body is not read to
  its end. Dropping the response does not.
- Cancelling the wait for the headers leaves the request running in its runtime. Its time there is
  bounded by the client's ``read_timeout``, so there is one client per order of magnitude of
  patience; no slot is lost by it, since the pool has no fixed number of them (tests/plugins).
"""

import asyncio
import ipaddress
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    ClientClosedError,
    ConnectError,
    ConnectTimeoutError,
    DecodeError,
    PyreqwestError,
)
from pyreqwest.http import Url
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from plugins.contract import AdapterError, FailureKind

CONNECT_S_MAX = 5.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
REFUSAL_BYTES_MAX = 64 * 1024
READ_AHEAD_BYTES = 64 * 1024
# Shorter than the keep-alive of the servers that providers run (uvicorn: 5 s), so that a request is
# not sent into a connection that the other side is closing.
_POOL_IDLE_S = 4.0


class Upstream:
    """One URL that requests are posted to, with its headers and its pools."""

    def __init__(
        self, base_url: str, api_key: str | None, user_agent: str, ca_file: str | None
    ) -> None:
        parts = urlsplit(base_url)
        self._url = Url(parts._replace(path=parts.path.rstrip("/") + "/chat/completions").geturl())
        self._host = parts.hostname or ""
        self._user_agent = user_agent
        self._ca_file = ca_file
        self._headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            # An encoded answer could unpack to any size.
            "accept-encoding": "identity",
        }
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._ca_pem: bytes | None = None
        self._clients: dict[int, Client] = {}
        self._open = False

    async def start(self) -> None:
        """Read what the clients need. Raises OSError where ``ca_file`` cannot be read."""
        if self._ca_file is not None:
            self._ca_pem = await asyncio.to_thread(Path(self._ca_file).read_bytes)
        self._open = True

    async def close(self) -> None:
        """Close every connection; exchanges in progress fail."""
        self._open = False
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.close()

    async def fetch(self, body: bytes, *, by: float, silence_s: float) -> tuple["Exchange", bytes]:
        """Send a request and read the whole reply, until ``by`` in the loop's time.

        ``silence_s`` is the longest wait that the call allows for anything. The exchange comes back
        closed; its head can still be read. Raises AdapterError for all that goes wrong below HTTP.
        """
        try:
            # One timer for all of it: timers are a tenth of the cost of a small call.
            async with asyncio.timeout_at(by):
                exchange = await self._send(body, READ_AHEAD_BYTES, silence_s)
                try:
                    return exchange, await exchange.rest()
                finally:
                    await exchange.close()
        except (PyreqwestError, TimeoutError) as error:
            raise _translate(error) from error

    async def stream(self, body: bytes, *, by: float, silence_s: float) -> "Exchange":
        """Send a request and wait for the head of the reply; as ``fetch``, but left open."""
        try:
            async with asyncio.timeout_at(by):
                return await self._send(body, 0, silence_s)
        except (PyreqwestError, TimeoutError) as error:
            raise _translate(error) from error

    async def _send(self, body: bytes, read_ahead_bytes: int, silence_s: float) -> "Exchange":
        request = (
            self._client(silence_s)
            .post(self._url)
            .body_bytes(body)
            .streamed_read_buffer_limit(read_ahead_bytes)
            .build_streamed()
        )
        return Exchange(request, await request.__aenter__())

    def _client(self, silence_s: float) -> Client:
        """The pooled client whose ``read_timeout`` is the next power of two above ``silence_s``."""
        power = int(silence_s).bit_length()
        client = self._clients.get(power)
        if client is None:
            if not self._open:
                raise AdapterError(FailureKind.UPSTREAM, "the provider's adapter is not open")
            client = self._clients[power] = self._build(float(1 << power))
        return client

    def _build(self, read_timeout_s: float) -> Client:
        builder = (
            ClientBuilder()
            .default_headers(self._headers)
            .user_agent(self._user_agent)
            .follow_redirects(False)
            .referer(False)
            .default_cookie_store(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .connect_timeout(timedelta(seconds=CONNECT_S_MAX))
            .read_timeout(timedelta(seconds=read_timeout_s))
            .pool_idle_timeout(timedelta(seconds=_POOL_IDLE_S))
            .min_tls_version("TLSv1.2")
        )
        if self._ca_pem is not None:
            builder = builder.add_root_certificate_pem(self._ca_pem)
        if _is_near(self._host):
            # A proxy from the environment is for the Internet, not for this machine or network.
            builder = builder.no_proxy()
        return builder.build()


class Exchange:
    """One request and its reply. ``close`` must be called; it aborts what has not been read."""

    __slots__ = ("_received_bytes", "_request", "_response", "status")

    def __init__(self, request: StreamRequest, response: Response) -> None:
        self._request = request
        self._response = response
        self._received_bytes = 0
        self.status = response.status

    def header(self, name: str) -> str | None:
        """One header of the reply, by lower-case name; None too for one that is not ASCII."""
        try:
            return self._response.get_header(name)
        except ValueError:
            return None

    async def read(self, by: float) -> bytes | None:
        """The next piece of the body, None at its end; AdapterError (TIMEOUT) after ``by``."""
        try:
            async with asyncio.timeout_at(by):
                return await self._piece()
        except (PyreqwestError, TimeoutError) as error:
            raise _translate(error) from error

    async def read_all(self, by: float) -> bytes:
        """The rest of the body, until ``by``."""
        try:
            async with asyncio.timeout_at(by):
                return await self.rest()
        except (PyreqwestError, TimeoutError) as error:
            raise _translate(error) from error

    async def rest(self) -> bytes:
        """The rest of the body; of a refusal only as much as is worth reading.

        Knows no time limit and raises pyreqwest's own errors: for callers that handle both.
        """
        bytes_max = ANSWER_BYTES_MAX if 200 <= self.status < 300 else REFUSAL_BYTES_MAX
        piece = await self._piece()
        if piece is None:
            return b""
        pieces = [piece]
        while self._received_bytes < bytes_max and (piece := await self._piece()) is not None:
            pieces.append(piece)
        return b"".join(pieces)

    async def _piece(self) -> bytes | None:
        piece = await self._response.body_reader.read_chunk()
        if piece is None:
            return None
        self._received_bytes += len(piece)
        if self._received_bytes > ANSWER_BYTES_MAX:
            raise AdapterError(
                FailureKind.PROTOCOL,
                "the provider's answer is too large",
                detail=f"more than {ANSWER_BYTES_MAX} bytes",
            )
        return piece.to_bytes()

    async def close(self) -> None:
        """End the exchange; an unread rest closes the connection."""
        await self._request.__aexit__(None, None, None)


def _is_near(host: str) -> bool:
    """Whether a host is this machine, or is named by an address of a private network."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def _translate(error: PyreqwestError | TimeoutError) -> AdapterError:
    """Foreign exceptions, once, at the edge."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, ConnectError | ConnectTimeoutError):
        return AdapterError(FailureKind.CONNECT, "the provider could not be reached", detail=detail)
    if isinstance(error, TimeoutError):
        return AdapterError(FailureKind.TIMEOUT, "the provider took too long", detail=detail)
    if isinstance(error, DecodeError):
        return AdapterError(
            FailureKind.PROTOCOL, "the provider's answer is cut short or not HTTP", detail=detail
        )
    if isinstance(error, ClientClosedError):
        return AdapterError(FailureKind.UPSTREAM, "the appliance is stopping", detail=detail)
    return AdapterError(FailureKind.UPSTREAM, "the connection to the provider broke", detail=detail)
