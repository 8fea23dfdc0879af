"""Adapter over any server that speaks OpenAI's chat completion API.

This is the gateway's hot path: decoders, URL and headers are made once, and a call that succeeds
logs nothing.
"""

import asyncio
from collections.abc import AsyncGenerator

from plugins.contract import (
    AdapterError,
    Chunk,
    Completion,
    Event,
    FailureKind,
    InferenceCall,
    Offer,
    Started,
    Toolbox,
    Usage,
    UsageReport,
)
from plugins.openai_compatible import failures, wire
from plugins.openai_compatible.reading import Reading
from plugins.openai_compatible.upstream import Exchange, Upstream

# How long a provider may take to end the HTTP body after its last event. Waiting this little keeps
# the connection for the next call; a provider that needs longer gets its connection closed.
_TAIL_S_MAX = 0.05
REQUEST_ID_LENGTH_MAX = 200


class OpenAICompatibleAdapter:
    """One provider. See ``plugins.contract.Adapter`` for the rules it keeps."""

    def __init__(self, upstream: Upstream, api_key: str | None, toolbox: Toolbox) -> None:
        self._upstream = upstream
        self._api_key = api_key
        self._toolbox = toolbox
        self._id_header = (toolbox.request_id_header or "").lower()

    def offers(self) -> list[Offer]:
        """The configured models; all request parameters are passed on."""
        provider = self._toolbox.provider_id
        return [entry.offer(provider) for entry in self._toolbox.models]

    async def start(self) -> None:
        """Connections are opened by the first call."""
        await self._upstream.start()

    async def close(self) -> None:
        """Drop all connections."""
        await self._upstream.close()

    def infer(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        """A stream is one ``Chunk`` per read of the network: one or more deltas, in order."""
        return self._streamed(call) if call.stream else self._whole(call)

    async def _whole(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        began = asyncio.get_running_loop().time()
        by = began + min(call.first_event_s, _seconds_max(call))
        order, silence_s = wire.encode_request(call), max(call.first_event_s, call.idle_s)
        if self._id_header:
            exchange = await self._upstream.stream(order, by=by, silence_s=silence_s)
            try:
                if 200 <= exchange.status < 300:
                    yield Started(self._id_of(exchange))
                body = await exchange.read_all(by)
            finally:
                await exchange.close()
            reply = self._reply(exchange, body)
        else:
            exchange, body = await self._upstream.fetch(order, by=by, silence_s=silence_s)
            reply = self._reply(exchange, body)
            yield Started(reply.id or "")
        choices = wire.choices_of(reply)
        yield Completion(choices)
        usage = wire.usage_of(reply.usage)
        if usage is None:
            delivered = wire.Delivered()
            for choice in choices:
                delivered.add(choice.message)
            usage = delivered.estimate(call.request)
        yield UsageReport(_with_compute(usage, call, exchange, began))

    async def _streamed(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        time = asyncio.get_running_loop().time
        began = time()
        deadline = began + _seconds_max(call)
        by = min(began + call.first_event_s, deadline)
        exchange = await self._upstream.stream(
            wire.encode_request(call), by=by, silence_s=max(call.first_event_s, call.idle_s)
        )
        reading = Reading(self._api_key)
        started = False
        try:
            await self._check_head(exchange, by)
            if self._id_header:
                yield Started(self._id_of(exchange))
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
            await _end(exchange, min(time() + _TAIL_S_MAX, deadline))
        except AdapterError as error:
            if started:
                usage = reading.usage(call.request)
                error.usage = _with_compute(usage, call, exchange, began)
            raise
        finally:
            await exchange.close()
        yield UsageReport(_with_compute(reading.usage(call.request), call, exchange, began))

    def _id_of(self, exchange: Exchange) -> str:
        """The id under which the provider can be asked for the cost; empty where it gave none
        that can be sent back."""
        found = exchange.header(self._id_header) or ""
        good = len(found) <= REQUEST_ID_LENGTH_MAX and found.isascii() and found.isprintable()
        return found.strip() if good else ""

    async def _check_head(self, exchange: Exchange, by: float) -> None:
        """Refuse a reply that is no plain event stream; the body says what it is instead."""
        if not 200 <= exchange.status < 300:
            body = await exchange.read_all(by)
            raise failures.refusal(exchange.status, exchange.header, body, self._api_key)
        self._check_plain(exchange)
        kind = exchange.header("content-type") or ""
        if not kind.startswith("text/event-stream"):
            body = await exchange.read_all(by)
            self._decode(body)
            raise self._unreadable(f"content-type {kind}", body)

    def _check_plain(self, exchange: Exchange) -> None:
        encoding = exchange.header("content-encoding")
        if encoding is not None and encoding != "identity":
            raise AdapterError(
                FailureKind.PROTOCOL,
                "the provider's answer is encoded, which was not asked for",
                detail=f"content-encoding: {encoding}",
            )

    def _reply(self, exchange: Exchange, body: bytes) -> wire.WireReply:
        """A whole answer that has choices; anything else is raised."""
        if not 200 <= exchange.status < 300:
            raise failures.refusal(exchange.status, exchange.header, body, self._api_key)
        self._check_plain(exchange)
        reply = self._decode(body)
        if not reply.choices:
            raise self._unreadable("no choices", body)
        return reply

    def _decode(self, body: bytes) -> wire.WireReply:
        """A whole reply; an error that came with status 200 is raised."""
        try:
            reply = wire.reply_decoder.decode(body)
        except wire.DECODE_ERRORS as error:
            raise self._unreadable(error, body) from error
        if reply.error or reply.object == "error":
            raise failures.error_in_answer(reply.error or reply.message, self._api_key)
        return reply

    def _unreadable(self, why: object, body: bytes) -> AdapterError:
        said = failures.clean(body[:1024].decode("utf-8", "replace"), self._api_key)
        return AdapterError(
            FailureKind.PROTOCOL,
            "the provider's answer cannot be read",
            detail=f"{str(why)[:120]}: {said}",
        )


def _seconds_max(call: InferenceCall) -> float:
    """How long an attempt may take: where compute is billed, no longer than the hold pays for."""
    if call.compute_ns_max is None:
        return call.deadline_s
    return min(call.deadline_s, call.compute_ns_max / 1e9)


def _with_compute(usage: Usage, call: InferenceCall, exchange: Exchange, began: float) -> Usage:
    """The usage, with the compute time where that is what the offer is priced by."""
    if call.compute_ns_max is None:
        return usage
    wall_ns = round((asyncio.get_running_loop().time() - began) * 1e9)
    return wire.with_compute(usage, exchange.header("x-compute-time"), wall_ns)


async def _end(exchange: Exchange, by: float) -> None:
    """Read to the end of the body, so that the connection can serve another call."""
    try:
        while await exchange.read(by) is not None:
            pass
    except AdapterError:
        # The answer is complete; how the connection ends no longer matters.
        return
