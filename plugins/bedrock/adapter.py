"""Adapter over Amazon Bedrock's Converse and ConverseStream."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import msgspec

from plugins.anthropic import conversation, thinking
from plugins.bedrock import refusals, request, signing, wire
from plugins.bedrock.models import model_of
from plugins.bedrock.stream import Reading, malformed
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

REQUEST_ID = "x-amzn-requestid"
_TAIL_S_MAX = 0.05
_EVENT_STREAM = "application/vnd.amazon.eventstream"
_CLAUDE_MODALITIES = frozenset({"text", "image", "file"})
_PORTS = {"http": 80, "https": 443}


def _utc_now() -> datetime:
    return datetime.now(UTC)


class BedrockAdapter:
    """One region. See ``plugins.contract.Adapter`` for the rules it keeps.

    Closing a stream does not stop the cost there (OpenRouterTeam/docs, stream cancellation).
    """

    def __init__(
        self,
        client: Client,
        toolbox: Toolbox,
        *,
        base_url: str,
        region: str,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._client = client
        self._toolbox = toolbox
        self._scope = signing.Scope(region=region)
        self._now = now
        parts = urlsplit(base_url)
        self._prefix = parts.path.rstrip("/")
        port = parts.port
        host = parts.hostname or ""
        self._host = host if port in (None, _PORTS[parts.scheme]) else f"{host}:{port}"
        self._id_header = (toolbox.request_id_header or REQUEST_ID).lower()

    def offers(self) -> list[Offer]:
        """The configured models, with what their ids say of their abilities."""
        return [self._offer(entry) for entry in self._toolbox.models]

    def _offer(self, entry: ModelEntry) -> Offer:
        model = model_of(entry.upstream_id)
        offer = entry.offer(self._toolbox.provider_id, supported_params=model.params)
        if offer.input_modalities is not None or model.family != "claude":
            return offer
        return msgspec.structs.replace(offer, input_modalities=_CLAUDE_MODALITIES)

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
        key = signing.key_of(call.api_key)
        messages = call.chat.messages
        turns = await conversation.read(messages, self._toolbox.fetch, leave_https=False)
        body = request.encode(call, turns, model_of(call.upstream_id))
        verb = "converse-stream" if call.stream else "converse"
        target = f"/model/{quote(call.upstream_id, safe='')}/{verb}"
        headers: signing.Headers = (
            ("accept", _EVENT_STREAM if call.stream else "application/json"),
            ("content-type", "application/json"),
        )
        if isinstance(key, signing.BearerKey):
            headers = (*headers, ("authorization", f"Bearer {key.key}"))
        elif key is not None:
            headers += signing.sign(
                key,
                self._scope,
                self._now(),
                method="POST",
                host=self._host,
                path=self._prefix + target,
                headers=headers,
                body=body,
            )
        return HttpRequest(target=target, headers=headers, body=body)

    async def _whole(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        by = asyncio.get_running_loop().time() + min(call.first_event_s, call.deadline_s)
        sent, silence_s = await self._request(call), max(call.first_event_s, call.idle_s)
        exchange = await self._client.stream(sent, by=by, silence_s=silence_s)
        try:
            if 200 <= exchange.status < 300:
                yield Started(exchange.id_in(self._id_header))
            body = await exchange.read_all(by)
        finally:
            await exchange.close()
        reply = self._reply(exchange, body, call.api_key)
        usage = wire.usage_of(reply.usage)
        if reply.stop_reason in wire.MALFORMED:
            raise malformed(reply.stop_reason, usage)
        choice = wire.choice_of(reply, hide_thoughts=thinking.wish_of(call.chat).hidden)
        yield Completion([choice])
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
                    yield Started(exchange.id_in(self._id_header))
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

    async def _check_head(self, exchange: Exchange, by: float, key: str | None) -> None:
        """Refuse a reply that is no plain event stream; the body says what it is instead."""
        if not 200 <= exchange.status < 300:
            body = await exchange.read_all(by)
            raise refusals.refusal(exchange.status, exchange.header, body, key)
        exchange.check_plain()
        kind = exchange.header("content-type") or ""
        if not kind.startswith(_EVENT_STREAM):
            raise failures.unreadable(f"content-type {kind}", await exchange.read_all(by), key)

    def _reply(self, exchange: Exchange, body: bytes, key: str | None) -> wire.WireReply:
        """A whole answer; anything else is raised."""
        if not 200 <= exchange.status < 300:
            raise refusals.refusal(exchange.status, exchange.header, body, key)
        exchange.check_plain()
        try:
            reply = wire.reply_decoder.decode(body)
        except failures.DECODE_ERRORS as error:
            raise failures.unreadable(error, body, key) from error
        if reply.parts is None:
            raise failures.unreadable("no message", body, key)
        return reply
