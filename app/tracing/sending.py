"""One request to the collector: bounded in time, and in what is read of the answer.

OTLP over HTTP, https://opentelemetry.io/docs/specs/otlp/: 429, 502, 503 and 504 may be tried again,
nothing else that was answered may.
"""

import asyncio
from typing import NamedTuple

import httpx

from app.tracing.settings import Settings
from app.version import VERSION
from plugins.http.tls import client_context

ANSWER_BYTES_MAX = 64 * 1024
WAIT_S_MAX = 60.0
_AGAIN = frozenset({429, 502, 503, 504})
_REFUSED = frozenset({401, 403})
_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "it took too long to connect"),
    (httpx.ConnectError, "it cannot be connected to"),
    (httpx.ProxyError, "the proxy did not let it through"),
    (httpx.TimeoutException, "it took too long"),
    (TimeoutError, "it took too long"),
    (httpx.ProtocolError, "what it answered is no HTTP"),
)


class Answer(NamedTuple):
    """``fault`` is empty where the collector took it; else why not, in words of ours. ``again``:
    another try may do better, after ``wait_s`` at least. ``refused``: the headers are not right."""

    fault: str = ""
    again: bool = False
    wait_s: float = 0.0
    body: bytes = b""
    refused: bool = False


class Sender:
    """Posts to the collector over connections that it keeps; after a failure over new ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None

    async def post(self, body: bytes) -> Answer:
        """Send an ``ExportTraceServiceRequest``. Never raises but for a cancellation."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                if self._client is None:
                    self._client = await asyncio.to_thread(self._open)
                return await self._post(self._client, body)
        except Exception as error:  # noqa: BLE001  # a collector's doing must not end anything here
            await self.close()
            return Answer(_in_words(error), again=True)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _post(self, client: httpx.AsyncClient, body: bytes) -> Answer:
        async with client.stream("POST", self._settings.url, content=body) as answer:
            read = bytearray()
            async for piece in answer.aiter_raw():
                read += piece
                if len(read) > ANSWER_BYTES_MAX:
                    read.clear()  # leaving here closes the connection
                    break
            status = answer.status_code
            if answer.is_success:
                return Answer(body=bytes(read))
            return Answer(
                f"it answered {status}",
                again=status in _AGAIN,
                wait_s=_wait_s(answer.headers.get("retry-after", "")),
                refused=status in _REFUSED,
            )

    def _open(self) -> httpx.AsyncClient:
        settings = self._settings
        headers = {
            **settings.headers,
            "content-type": "application/x-protobuf",
            "accept-encoding": "identity",
            "user-agent": f"turnpike/{VERSION}",
        }
        return httpx.AsyncClient(
            verify=client_context(settings.ca_pem),
            headers=headers,
            timeout=settings.timeout_s,
            follow_redirects=False,
            trust_env=settings.through_proxy,
            limits=httpx.Limits(max_connections=2, max_keepalive_connections=1),
        )


def _in_words(error: Exception) -> str:
    """Not the error's own: they may repeat what the collector sent."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    return f"it could not be sent to ({type(error).__name__})"


def _wait_s(asked: str) -> float:
    seconds = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 0
    return min(float(seconds), WAIT_S_MAX)
