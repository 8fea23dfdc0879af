"""Adapter over any server that speaks OpenAI's chat completion API.

This is the gateway's hot path: decoders, URL and headers are made once, and a call that succeeds
logs nothing.
"""

import asyncio
from collections.abc import AsyncGenerator

from plugins.chat import ChatRequest
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
from plugins.openai_compatible import loose, refusals, wire
from plugins.openai_compatible.compute import seconds_max, with_compute
from plugins.openai_compatible.discovery import read_listing
from plugins.openai_compatible.inlining import inlined
from plugins.openai_compatible.preset import Listing, Preset
from plugins.openai_compatible.presets import GENERIC
from plugins.openai_compatible.reading import Reading
from plugins.openai_compatible.sending import deployment_target, encode_request, shape_of
from plugins.openai_compatible.tasks.dialects import dialect_of, supported_params
from plugins.openai_compatible.tasks.perform import perform
from plugins.tasks import CONVERSATIONAL

# How long a provider may take to end the HTTP body after its last event. Waiting this little keeps
# the connection for the next call; a provider that needs longer gets its connection closed.
_TAIL_S_MAX = 0.05
_TARGET = "/chat/completions"
_LISTING_S_MAX = 30.0
_PLAIN = (
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
)


class OpenAICompatibleAdapter:
    """One provider. See ``plugins.contract.Adapter`` for the rules it keeps.

    ``api_version`` is of Azure's older API, in which the model is in the path.
    """

    def __init__(
        self,
        client: Client,
        toolbox: Toolbox,
        preset: Preset = GENERIC,
        *,
        api_version: str | None = None,
    ) -> None:
        self._client = client
        self._toolbox = toolbox
        self._preset = preset
        self._shape = shape_of(preset)
        self._dialect = dialect_of(preset.name)
        self._api_version = api_version
        self._bearer = "Bearer " if preset.key_header == "authorization" else ""
        self._id_header = (toolbox.request_id_header or "").lower()

    def offers(self) -> list[Offer]:
        """The configured models, with what the provider honours."""
        return [self.offer_of(entry) for entry in self._toolbox.models]

    def offer_of(self, entry: ModelEntry) -> Offer:
        """The offer for a model, configured or found."""
        chats = CONVERSATIONAL in entry.tasks
        known = self._preset.params if chats else supported_params(self._dialect, entry.tasks)
        return entry.offer(
            self._toolbox.provider_id,
            supported_params=known,
            abort_stops_billing=chats and self._preset.abort_stops_billing,
        )

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
        if call.stream:
            return self._streamed(call)
        if isinstance(call.request, ChatRequest):
            return self._whole(call)
        return perform(
            self._client,
            call,
            fetch=self._toolbox.fetch,
            headers=self._key_of(call.api_key),
            dialect=self._dialect,
            id_header=self._id_header,
        )

    async def _whole(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        began = asyncio.get_running_loop().time()
        by = began + min(call.first_event_s, seconds_max(call))
        if self._preset.inlines:
            call = await inlined(call, self._toolbox.fetch)
        request, silence_s = self._request(call), max(call.first_event_s, call.idle_s)
        if self._id_header:
            exchange = await self._client.stream(request, by=by, silence_s=silence_s)
            try:
                if 200 <= exchange.status < 300:
                    yield Started(exchange.id_in(self._id_header))
                body = await exchange.read_all(by)
            finally:
                await exchange.close()
            reply = self._reply(exchange, body, call.api_key)
        else:
            exchange, body = await self._client.fetch(request, by=by, silence_s=silence_s)
            reply = self._reply(exchange, body, call.api_key)
            yield Started(reply.id or "")
        choices = wire.choices_of(reply)
        yield Completion(choices)
        usage = wire.usage_of(reply.usage, reasoning_apart=self._preset.reasoning_apart)
        if usage is None:
            delivered = wire.Delivered()
            for choice in choices:
                delivered.add(choice.message)
            usage = delivered.estimate(call.chat)
        yield UsageReport(with_compute(usage, call, exchange, began))

    async def _streamed(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        time = asyncio.get_running_loop().time
        began = time()
        deadline = began + seconds_max(call)
        by = min(began + call.first_event_s, deadline)
        if self._preset.inlines:
            call = await inlined(call, self._toolbox.fetch)
        exchange = await self._client.stream(
            self._request(call), by=by, silence_s=max(call.first_event_s, call.idle_s)
        )
        reading = Reading(call.api_key, reasoning_apart=self._preset.reasoning_apart)
        stop = call.stop if self._preset.abort_stops_billing else None
        started = False
        try:
            await self._check_head(exchange, by, call.api_key)
            if self._id_header:
                yield Started(exchange.id_in(self._id_header))
            while not reading.ended:
                piece = await exchange.read(by)
                deltas, heard = reading.take(piece)
                if deltas:
                    if not started:
                        started = True
                        if not self._id_header:
                            yield Started(reading.upstream_id)
                    yield Chunk(deltas)
                if reading.failure is not None:
                    raise reading.failure
                if heard and started:
                    by = min(time() + call.idle_s, deadline)
                if stop is not None and stop.is_set():
                    break
            else:
                await exchange.run_out(min(time() + _TAIL_S_MAX, deadline))
        except AdapterError as error:
            if started:
                usage = reading.usage(call.chat)
                error.usage = with_compute(usage, call, exchange, began)
            raise
        finally:
            await exchange.close()
        yield UsageReport(with_compute(reading.usage(call.chat), call, exchange, began))

    async def _check_head(self, exchange: Exchange, by: float, key: str | None) -> None:
        """Refuse a reply that is no plain event stream; the body says what it is instead."""
        if not 200 <= exchange.status < 300:
            body = await exchange.read_all(by)
            raise self._refusal(exchange, body, key)
        exchange.check_plain()
        kind = exchange.header("content-type") or ""
        if not kind.startswith("text/event-stream"):
            body = await exchange.read_all(by)
            self._decode(body, key)
            raise failures.unreadable(f"content-type {kind}", body, key)

    def _reply(self, exchange: Exchange, body: bytes, key: str | None) -> wire.WireReply:
        """A whole answer that has choices; anything else is raised."""
        if not 200 <= exchange.status < 300:
            raise self._refusal(exchange, body, key)
        exchange.check_plain()
        reply = self._decode(body, key)
        if not reply.choices:
            raise failures.unreadable("no choices", body, key)
        return reply

    def _decode(self, body: bytes, key: str | None) -> wire.WireReply:
        """A whole reply; an error that came with status 200 is raised."""
        try:
            reply = wire.reply_decoder.decode(body)
        except failures.DECODE_ERRORS:
            try:
                reply = loose.reply_of(body)
            except failures.DECODE_ERRORS as error:
                raise failures.unreadable(error, body, key) from error
        if reply.error or reply.object == "error" or (reply.message and not reply.choices):
            raise refusals.in_answer(reply.error or reply.message, key)
        return reply

    def _refusal(self, exchange: Exchange, body: bytes, key: str | None) -> AdapterError:
        error = failures.refusal(exchange.status, exchange.header, body, key)
        if exchange.status == 429 and error.retry_after_s is None:
            error.retry_after_s = refusals.wait_told(exchange.header, self._preset.resets)
        return error

    def _request(self, call: InferenceCall) -> HttpRequest:
        target = _TARGET
        if self._api_version is not None:
            target = deployment_target(call.upstream_id, _TARGET, self._api_version)
        headers = (*_PLAIN, *self._key_of(call.api_key)) if call.api_key else _PLAIN
        return HttpRequest(target=target, headers=headers, body=encode_request(call, self._shape))

    def _key_of(self, key: str | None) -> tuple[tuple[str, str], ...]:
        return ((self._preset.key_header, self._bearer + key),) if key else ()


class DiscoveringAdapter(OpenAICompatibleAdapter):
    """One provider that lists its models. See ``plugins.contract.Discovering``."""

    async def discover(self, api_key: str | None) -> list[ModelEntry]:
        """What the provider lists now."""
        listing = self._preset.listing or Listing()
        request = HttpRequest(
            method="GET",
            target=listing.path,
            headers=(("accept", "application/json"), *self._key_of(api_key)),
        )
        by = asyncio.get_running_loop().time() + _LISTING_S_MAX
        exchange, body = await self._client.fetch(request, by=by, silence_s=_LISTING_S_MAX)
        if not 200 <= exchange.status < 300:
            raise self._refusal(exchange, body, api_key)
        exchange.check_plain()
        try:
            return read_listing(body, self._preset)
        except ValueError as error:
            raise failures.unreadable(error, body, api_key) from error
