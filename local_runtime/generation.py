"""One call on one engine: the engine's events as the contract's, within the call's limits."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing

from local_runtime.engines.contract import (
    Admitted,
    EngineEvent,
    EngineRequest,
    Failed,
    Finished,
    Piece,
    TokenLogprob,
    ToolCallPiece,
)
from local_runtime.patience import Patience
from local_runtime.placement.contract import Host
from plugins.chat import ChatRequest, ChoiceDelta, Delta, Object
from plugins.contract import (
    AdapterError,
    Chunk,
    Event,
    FailureKind,
    InferenceCall,
    Started,
    Usage,
    UsageReport,
)


class Generation:
    """Submits one call and translates what comes. ``begun_s``: when its limits began to run.

    ``adapter`` is the model's that is asked for, or empty; ``media`` are the call's pictures.
    """

    def __init__(
        self,
        call: InferenceCall,
        host: Host,
        begun_s: float,
        *,
        adapter: str = "",
        media: Sequence[bytes] = (),
    ) -> None:
        self._call = call
        self._host = host
        self._adapter = adapter
        self._media = media
        self._deadline_s = begun_s + call.deadline_s
        self._limit_s = begun_s + call.first_event_s
        self._usage = Usage()
        self._begun: set[int] = set()
        request = call.request
        self._asks_for_functions = isinstance(request, ChatRequest) and bool(request.functions)

    async def events(self) -> AsyncGenerator[Event, None]:
        call = self._call
        request = self._request()
        watch = None
        if call.stop is not None:
            watch = asyncio.create_task(self._cancel_when(call.stop), name="local-stop")
        patience = Patience(self._host, request.request_id, min(self._limit_s, self._deadline_s))
        try:
            async with aclosing(self._host.submit(request)) as told:
                async for engine_events in told:
                    self._usage = engine_events[-1].usage
                    patience.until(self._deadline_s, call.idle_s)
                    for event in self._translate(engine_events):
                        yield event
        except TimeoutError:
            raise AdapterError(
                FailureKind.TIMEOUT, "The model took too long.", usage=self._usage
            ) from None
        finally:
            patience.end()
            if watch is not None:
                watch.cancel()

    def _request(self) -> EngineRequest:
        """What the engine is asked. Raises AdapterError."""
        call = self._call
        return EngineRequest(
            request_id=call.attempt_id,
            chat=call.chat,
            compute_ns_max=call.compute_ns_max,
            fairness_key=call.fairness_key,
            cache_scope=call.cache_scope,
            adapter=self._adapter,
            media=list(self._media),
        )

    def _translate(self, events: Iterable[EngineEvent]) -> Iterator[Event]:
        """What came together, in the contract's words; pieces that follow each other are one
        chunk, with a delta each. Raises AdapterError.
        """
        deltas: list[ChoiceDelta] = []
        for event in events:
            if isinstance(event, Piece):
                if _says_something(event):
                    deltas.append(self._delta(event))
                continue
            if deltas:
                yield Chunk(deltas, alone=True)
                deltas = []
            yield from self._other(event)
        if deltas:
            yield Chunk(deltas, alone=True)

    def _other(self, event: EngineEvent) -> Sequence[Event]:
        """The same of what is no text. Raises AdapterError."""
        if isinstance(event, Admitted):
            return (Started(upstream_id=event.request_id),)
        if isinstance(event, Finished):
            return (UsageReport(event.usage),)
        if isinstance(event, Failed):
            raise AdapterError(
                event.kind,
                event.message,
                detail=event.detail,
                param=event.param,
                usage=event.usage,
            )
        return ()

    def _delta(self, piece: Piece) -> ChoiceDelta:
        delta = Delta()
        if piece.text:
            delta.content = piece.text
        if piece.reasoning:
            delta.reasoning_content = piece.reasoning
        reason = piece.finish_reason
        if self._asks_for_functions:
            # Asked for by its older name, the only call there may be has its older form.
            if piece.tool_calls:
                delta.function_call = _function(piece.tool_calls[0])
            reason = "function_call" if reason == "tool_calls" else reason
        elif piece.tool_calls:
            delta.tool_calls = [_tool_call(part) for part in piece.tool_calls]
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            delta.role = "assistant"
            if not (piece.reasoning or piece.tool_calls):
                delta.content = piece.text
        logprobs: Object | None = None
        if piece.logprobs is not None:
            logprobs = {"content": [_logprob(item) for item in piece.logprobs], "refusal": None}
        return ChoiceDelta(index=piece.index, delta=delta, logprobs=logprobs, finish_reason=reason)

    async def _cancel_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._host.cancel(self._call.attempt_id)


def _says_something(piece: Piece) -> bool:
    return bool(
        piece.text or piece.reasoning or piece.tool_calls or piece.logprobs or piece.finish_reason
    )


def _tool_call(part: ToolCallPiece) -> Object:
    """A part of a call as an entry of OpenAI's ``delta.tool_calls``: id and name only once."""
    call: Object = {"index": part.index, "function": _function(part)}
    return call | {"id": part.id, "type": "function"} if part.id else call


def _function(part: ToolCallPiece) -> Object:
    return (
        {"name": part.name, "arguments": part.arguments}
        if part.name
        else {"arguments": part.arguments}
    )


def _logprob(item: TokenLogprob) -> Object:
    """One token of OpenAI's ``logprobs.content``."""
    return {
        "token": item.token,
        "logprob": item.logprob,
        "bytes": item.bytes,
        "top_logprobs": [
            {"token": top.token, "logprob": top.logprob, "bytes": top.bytes} for top in item.top
        ],
    }
