"""Adapter over Google's Gemini API (``generateContent``, ``batchEmbedContents``)."""

import asyncio
from collections.abc import AsyncGenerator

from msgspec.structs import replace

from plugins.chat import ChatRequest
from plugins.contract import (
    AdapterError,
    Chunk,
    Completion,
    Event,
    FailureKind,
    InferenceCall,
    ModelEntry,
    Offer,
    Produced,
    Started,
    Toolbox,
    UsageReport,
)
from plugins.gemini import answer, contents, embeddings, refusals, request, wire
from plugins.gemini.models import abilities_of
from plugins.gemini.reading import Reading
from plugins.http import failures
from plugins.http.client import Client, Exchange, HttpRequest
from plugins.tasks import CONVERSATIONAL, FEATURE_EXTRACTION, EmbeddingRequest

# How long the provider may take to end the body, and to say what was used, after the last answer.
_TAIL_S_MAX = 1.0
_PLAIN = (
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
)
_MODALITIES = frozenset({"text", "image", "audio", "video", "file"})


class GeminiAdapter:
    """One provider. See ``plugins.contract.Adapter`` for the rules it keeps."""

    def __init__(self, client: Client, toolbox: Toolbox) -> None:
        """Raises ValueError for a configured model with a task that is not served here."""
        for entry in toolbox.models:
            if set(entry.tasks) not in ({CONVERSATIONAL}, {FEATURE_EXTRACTION}):
                raise ValueError(
                    f"models: {entry.id!r}: expected one task of "
                    f"{[CONVERSATIONAL, FEATURE_EXTRACTION]}"
                )
        self._client = client
        self._toolbox = toolbox
        self._id_header = (toolbox.request_id_header or "").lower()

    def offers(self) -> list[Offer]:
        """The configured models, with what their names say of their abilities."""
        return [self._offer(entry) for entry in self._toolbox.models]

    def _offer(self, entry: ModelEntry) -> Offer:
        provider = self._toolbox.provider_id
        if CONVERSATIONAL not in entry.tasks:
            return entry.offer(provider, supported_params=embeddings.SUPPORTED_PARAMS)
        params = request.params_of(abilities_of(entry.upstream_id))
        offer = entry.offer(provider, supported_params=params)
        if offer.input_modalities is not None:
            return offer
        return replace(offer, input_modalities=_MODALITIES)

    async def start(self) -> None:
        """Connections are opened by the first call."""
        await self._client.start()

    async def reach(self) -> None:
        """See ``plugins.contract.Reaching``."""
        await self._client.reach()

    async def close(self) -> None:
        """Drop all connections."""
        await self._client.close()

    def infer(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        """A stream is one ``Chunk`` per read of the network: one or more deltas, in order."""
        if isinstance(call.request, EmbeddingRequest):
            return self._embedded(call, call.request)
        return self._streamed(call) if call.stream else self._whole(call)

    async def _chat(self, call: InferenceCall, by: float, method: str) -> HttpRequest:
        """Raises AdapterError (BAD_REQUEST) for what cannot be sent."""
        can = abilities_of(call.upstream_id)
        try:
            async with asyncio.timeout_at(by):
                turns = await contents.read(call.chat.messages, can, self._toolbox.fetch)
        except TimeoutError as error:
            raise AdapterError(
                FailureKind.BAD_REQUEST,
                "The URLs in the request were not read in time.",
                param="messages",
            ) from error
        return self._request(call, method, request.encode(call, turns, can))

    def _request(self, call: InferenceCall, method: str, body: bytes) -> HttpRequest:
        headers = (*_PLAIN, ("x-goog-api-key", call.api_key)) if call.api_key else _PLAIN
        target = f"{request.path_of(call.upstream_id)}:{method}"
        return HttpRequest(target=target, headers=headers, body=body)

    async def _whole(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        asked: ChatRequest = call.chat
        by = asyncio.get_running_loop().time() + min(call.first_event_s, call.deadline_s)
        sent, silence_s = await self._chat(call, by, "generateContent"), _silence_s(call)
        exchange = await self._client.stream(sent, by=by, silence_s=silence_s)
        try:
            if self._id_header and 200 <= exchange.status < 300:
                yield Started(self._id_of(exchange, ""))
            body = await exchange.read_all(by)
        finally:
            await exchange.close()
        self._check(exchange, body, call.api_key)
        reading = Reading(call.api_key, call.attempt_id, asked.answers())
        deltas = reading.whole(body)
        if reading.failure is not None:
            raise reading.failure
        if not self._id_header:
            yield Started(self._id_of(exchange, reading.upstream_id))
        yield Completion(answer.whole(deltas))
        yield UsageReport(reading.usage(asked))

    async def _streamed(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        asked: ChatRequest = call.chat
        time = asyncio.get_running_loop().time
        deadline = time() + call.deadline_s
        by = min(time() + call.first_event_s, deadline)
        sent = await self._chat(call, by, "streamGenerateContent?alt=sse")
        exchange = await self._client.stream(sent, by=by, silence_s=_silence_s(call))
        reading = Reading(call.api_key, call.attempt_id, asked.answers())
        delivered = False
        try:
            await self._check_stream(exchange, by, call.api_key)
            while not reading.ended:
                piece = await _piece(exchange, by, reading)
                deltas, heard = reading.take(piece)
                if deltas:
                    if not delivered:
                        delivered = True
                        yield Started(self._id_of(exchange, reading.upstream_id))
                    yield Chunk(deltas)
                if reading.failure is not None:
                    raise reading.failure
                if heard and reading.started:
                    wait_s = _TAIL_S_MAX if reading.finished else call.idle_s
                    by = min(time() + wait_s, deadline)
        except AdapterError as error:
            if delivered:
                reading.failure = error
                error.usage = reading.usage(asked)
            raise
        finally:
            await exchange.close()
        yield UsageReport(reading.usage(asked))

    async def _embedded(
        self, call: InferenceCall, asked: EmbeddingRequest
    ) -> AsyncGenerator[Event, None]:
        by = asyncio.get_running_loop().time() + min(call.first_event_s, call.deadline_s)
        body = embeddings.encode(asked, call.upstream_id)
        sent, silence_s = self._request(call, "batchEmbedContents", body), _silence_s(call)
        exchange, body = await self._client.fetch(sent, by=by, silence_s=silence_s)
        self._check(exchange, body, call.api_key)
        output, usage = embeddings.read(body, asked, call.api_key)
        yield Started(self._id_of(exchange, ""))
        yield Produced(output)
        yield UsageReport(usage)

    def _id_of(self, exchange: Exchange, said: str) -> str:
        """The answer's id, or what the header says where the provider is asked by that."""
        found = exchange.header(self._id_header) or "" if self._id_header else said
        good = len(found) <= wire.ID_LENGTH_MAX and found.isascii() and found.isprintable()
        return found.strip() if good else ""

    def _check(self, exchange: Exchange, body: bytes, key: str | None) -> None:
        """Refuse a reply that is no good one."""
        if not 200 <= exchange.status < 300:
            raise refusals.refusal(exchange.status, exchange.header, body, key)
        exchange.check_plain()

    async def _check_stream(self, exchange: Exchange, by: float, key: str | None) -> None:
        """Refuse a reply that is no event stream; the body says what it is instead."""
        if not 200 <= exchange.status < 300:
            self._check(exchange, await exchange.read_all(by), key)
        self._check(exchange, b"", key)
        kind = exchange.header("content-type") or ""
        if not kind.startswith("text/event-stream"):
            raise failures.unreadable(f"content-type {kind}", await exchange.read_all(by), key)


def _silence_s(call: InferenceCall) -> float:
    return max(call.first_event_s, call.idle_s)


async def _piece(exchange: Exchange, by: float, reading: Reading) -> bytes | None:
    """The next piece of the body; None at its end, and where only that is missing."""
    try:
        return await exchange.read(by)
    except AdapterError:
        if reading.finished:
            return None
        raise
