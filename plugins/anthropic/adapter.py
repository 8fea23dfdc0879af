"""Adapter over Anthropic's Messages API, and over other servers that speak it."""

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from plugins.anthropic import conversation, refusals, request, thinking, wire
from plugins.anthropic.models import abilities_of
from plugins.anthropic.stream import Reading
from plugins.contract import (
    AdapterError,
    Chunk,
    Completion,
    Event,
    InferenceCall,
    ModelEntry,
    Offer,
    Started,
    Toolbox,
    UsageReport,
)
from plugins.http import failures
from plugins.http.client import Client, Exchange, HttpRequest
from plugins.openai_compatible.wire import Delivered

VERSION = "2023-06-01"
# How long the provider may take to end the HTTP body after its last event.
_TAIL_S_MAX = 0.05
_TARGET = "/v1/messages"
_PLAIN = (
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("anthropic-version", VERSION),
)
_MODALITIES = frozenset({"text", "image", "file"})


class AnthropicAdapter:
    """One provider. See ``plugins.contract.Adapter`` for the rules it keeps.

    Closing a stream stops the work there and its cost (OpenRouterTeam/docs, stream cancellation),
    but what was used by then is not said, so the offers do not claim ``abort_stops_billing``.
    """

    def __init__(self, client: Client, toolbox: Toolbox) -> None:
        self._client = client
        self._toolbox = toolbox
        self._id_header = (toolbox.request_id_header or "").lower()

    def offers(self) -> list[Offer]:
        """The configured models, with what their names say of their abilities."""
        return [self._offer(entry) for entry in self._toolbox.models]

    def _offer(self, entry: ModelEntry) -> Offer:
        params = request.params_of(abilities_of(entry.upstream_id))
        offer = entry.offer(self._toolbox.provider_id, supported_params=params)
        if offer.input_modalities is not None:
            return offer
        return msgspec.structs.replace(offer, input_modalities=_MODALITIES)

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
        return self._streamed(call) if call.stream else self._whole(call)

    async def _request(self, call: InferenceCall) -> HttpRequest:
        """Raises AdapterError (BAD_REQUEST) for what cannot be sent."""
        asked = call.chat
        can = abilities_of(call.upstream_id)
        turns = await conversation.read(asked.messages, self._toolbox.fetch, leave_https=True)
        headers: tuple[tuple[str, str], ...] = _PLAIN
        if call.api_key:
            headers = (*_PLAIN, ("x-api-key", call.api_key))
        body = request.encode(call, turns, can)
        return HttpRequest(target=_TARGET, headers=headers, body=body)

    async def _whole(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        began = asyncio.get_running_loop().time()
        by = began + min(call.first_event_s, call.deadline_s)
        sent, silence_s = await self._request(call), max(call.first_event_s, call.idle_s)
        exchange = await self._client.stream(sent, by=by, silence_s=silence_s)
        try:
            if self._id_header and 200 <= exchange.status < 300:
                yield Started(self._id_of(exchange, ""))
            body = await exchange.read_all(by)
        finally:
            await exchange.close()
        message = self._message(exchange, body, call.api_key)
        if not self._id_header:
            yield Started((message.id or "")[: wire.ID_LENGTH_MAX])
        choice = wire.choice_of(message, hide_thoughts=thinking.wish_of(call.chat).hidden)
        yield Completion([choice])
        usage = wire.buckets_of(wire.usage_of(message.usage))
        if usage is None:
            delivered = Delivered()
            delivered.add(choice.message)
            usage = delivered.estimate(call.chat)
        yield UsageReport(usage)

    async def _streamed(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        time = asyncio.get_running_loop().time
        began = time()
        deadline = began + call.deadline_s
        by = min(began + call.first_event_s, deadline)
        sent, silence_s = await self._request(call), max(call.first_event_s, call.idle_s)
        reading = Reading(call.api_key, hide_thoughts=thinking.wish_of(call.chat).hidden)
        exchange = await self._client.stream(sent, by=by, silence_s=silence_s)
        told = delivered = False
        try:
            await self._check_head(exchange, by, call.api_key)
            while not reading.ended:
                piece = await exchange.read(by)
                deltas, heard = reading.take(piece)
                if reading.started and not told:
                    told = True
                    yield Started(self._id_of(exchange, reading.upstream_id))
                if deltas:
                    delivered = True
                    yield Chunk(deltas)
                if reading.failure is not None:
                    raise reading.failure
                if heard and reading.started:
                    by = min(time() + call.idle_s, deadline)
            await exchange.run_out(min(time() + _TAIL_S_MAX, deadline))
        except AdapterError as error:
            if delivered:
                error.usage = reading.usage(call.chat)
            raise
        finally:
            await exchange.close()
        yield UsageReport(reading.usage(call.chat))

    def _id_of(self, exchange: Exchange, said: str) -> str:
        """The message's id, or what the header says where the provider is asked by that."""
        found = exchange.header(self._id_header) or "" if self._id_header else said
        good = len(found) <= wire.ID_LENGTH_MAX and found.isascii() and found.isprintable()
        return found.strip() if good else ""

    async def _check_head(self, exchange: Exchange, by: float, key: str | None) -> None:
        """Refuse a reply that is no plain event stream; the body says what it is instead."""
        if not 200 <= exchange.status < 300:
            body = await exchange.read_all(by)
            raise refusals.refusal(exchange.status, exchange.header, body, key)
        exchange.check_plain()
        kind = exchange.header("content-type") or ""
        if not kind.startswith("text/event-stream"):
            body = await exchange.read_all(by)
            self._decode(body, key)
            raise failures.unreadable(f"content-type {kind}", body, key)

    def _message(self, exchange: Exchange, body: bytes, key: str | None) -> wire.WireMessage:
        """A whole answer; anything else is raised."""
        if not 200 <= exchange.status < 300:
            raise refusals.refusal(exchange.status, exchange.header, body, key)
        exchange.check_plain()
        message = self._decode(body, key)
        if message.content is None:
            raise failures.unreadable("no content", body, key)
        return message

    def _decode(self, body: bytes, key: str | None) -> wire.WireMessage:
        """A whole reply; an error that came with status 200 is raised."""
        try:
            message = wire.message_decoder.decode(body)
        except failures.DECODE_ERRORS as error:
            raise failures.unreadable(error, body, key) from error
        if message.type == "error" or message.error:
            raise refusals.in_answer(message.error, key)
        return message
