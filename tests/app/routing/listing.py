"""A played provider that lists its models over HTTP, and the adapter that asks it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from plugins.contract import (
    AdapterError,
    Event,
    FailureKind,
    InferenceCall,
    ModelEntry,
    Offer,
    Price,
)
from plugins.http import failures
from plugins.http.client import Client, HttpRequest
from tests.upstreams.serving import Asked, Reply


class ListedModel(msgspec.Struct):
    """One model as the played provider writes it; the price is nano-USD per million tokens."""

    id: str
    input: int | None = None
    output: int | None = None
    context: int | None = None


class Lister:
    """What the provider lists, which a test changes as it goes along. Where ``go_on`` is cleared it
    says that a request ``came``, and waits."""

    def __init__(self) -> None:
        self.models: list[dict[str, Any]] = []
        self.status = 200
        self.keys: list[str] = []
        self.came, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def play(self, asked: Asked, reply: Reply) -> None:
        self.keys.append(asked.headers.get("authorization", ""))
        self.came.set()
        await self.go_on.wait()
        if self.status != 200:
            await reply.answer(self.status, {"error": {"message": "no"}}, [("Retry-After", "7")])
        else:
            await reply.answer(200, self.models)


class ListingAdapter:
    """Asks with ``GET /models``. It serves nothing: these tests are about what is listed."""

    def __init__(self, provider: str, base_url: str) -> None:
        self._provider = provider
        self._client = Client(base_url, user_agent="test")

    def offers(self) -> list[Offer]:
        return []

    async def start(self) -> None:
        await self._client.start()

    async def close(self) -> None:
        await self._client.close()

    def infer(self, call: InferenceCall) -> AsyncIterator[Event]:
        raise AdapterError(FailureKind.NOT_FOUND, "this provider lists only")

    async def discover(self, api_key: str | None) -> list[ModelEntry]:
        headers = (("authorization", f"Bearer {api_key}"),) if api_key else ()
        request = HttpRequest(target="/models", method="GET", headers=headers)
        exchange, body = await self._client.fetch(request, by=_in(5), silence_s=5)
        if exchange.status != 200:
            raise failures.refusal(exchange.status, exchange.header, body, api_key)
        try:
            listed = msgspec.json.decode(body, type=list[ListedModel])
        except failures.DECODE_ERRORS as error:
            raise AdapterError(FailureKind.PROTOCOL, "the list cannot be read") from error
        return [
            ModelEntry(
                id=each.id,
                upstream_id=each.id,
                price=Price(input=each.input or 0, output=each.output or 0),
                context_length=each.context,
            )
            for each in listed
        ]

    def offer_of(self, entry: ModelEntry) -> Offer:
        return entry.offer(self._provider)


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
