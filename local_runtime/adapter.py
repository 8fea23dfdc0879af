"""The local runtime as a provider like any other: ``plugins.contract.Adapter`` over the engines."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress

from local_runtime.engines.contract import (
    Admitted,
    EngineEvent,
    EngineRequest,
    Failed,
    Finished,
    Piece,
    TokenLogprob,
)
from local_runtime.placement.contract import Host
from local_runtime.runtime import LocalModel, LocalRuntime
from plugins.chat import ChoiceDelta, Delta, Object
from plugins.contract import (
    AdapterError,
    Chunk,
    Event,
    FailureKind,
    InferenceCall,
    Offer,
    Price,
    Started,
    Usage,
    UsageReport,
)

RETRY_AFTER_S_MAX = 60.0
_MEAN_WEIGHT = 0.1
# A schema is a grammar here, which no answer can leave.
_HELD_TO = frozenset({"structured_outputs"})
_READ = frozenset({"text"})


class LocalAdapter:
    """Serves every model of a ``LocalRuntime``. Answers come as chunks, streamed or not."""

    def __init__(
        self,
        runtime: LocalRuntime,
        *,
        price_nano_usd_per_second: int,
        provider_id: str = "local",
    ) -> None:
        self.runtime = runtime
        self._provider_id = provider_id
        self._price = Price(
            compute_per_second=price_nano_usd_per_second, free=price_nano_usd_per_second == 0
        )

    def offers(self) -> list[Offer]:
        """One per model, whatever its state: calls wait for a model that is being loaded."""
        return [
            Offer(
                model=model.spec.id,
                provider=self._provider_id,
                upstream_id=model.spec.id,
                price=self._price,
                context_length=model.context_length,
                supported_params=model.supported_params | _HELD_TO,
                input_modalities=_READ,
                output_modalities=_READ,
                abort_stops_billing=True,
            )
            for model in self.runtime.models.values()
        ]

    async def start(self) -> None:
        """Begin to load; calls may come at once."""
        self.runtime.start()

    async def close(self) -> None:
        await self.runtime.close()

    async def infer(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        """See the rules in ``plugins/contract.py``."""
        model = self.runtime.models.get(call.upstream_id)
        if model is None:
            raise AdapterError(
                FailureKind.NOT_FOUND, f"{call.upstream_id} is not served on this machine."
            )
        begun_s = asyncio.get_running_loop().time()
        with self._place(model):
            host = await _ready_unless_stopped(model, call)
            if host is None:
                yield UsageReport(Usage())
                return
            generation = _Generation(call, host, begun_s)
            async with aclosing(generation.events()) as events:
                async for event in events:
                    yield event

    @contextmanager
    def _place(self, model: LocalModel) -> Iterator[None]:
        """A place in the model's queue for as long as the call takes. Raises AdapterError."""
        places = model.engine_spec.sequences_max + self.runtime.queue_length_max
        if model.calls_open >= places:
            rounds = model.calls_open / model.engine_spec.sequences_max
            raise AdapterError(
                FailureKind.OVERLOADED,
                f"{model.spec.id} has {model.calls_open} calls waiting already.",
                retry_after_s=min(RETRY_AFTER_S_MAX, max(1.0, rounds * model.call_seconds_mean)),
            )
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        model.calls_open += 1
        model.supervisor.enter()
        try:
            yield
        finally:
            model.calls_open -= 1
            model.supervisor.leave()
            took_s = loop.time() - begun_s
            model.call_seconds_mean += _MEAN_WEIGHT * (took_s - model.call_seconds_mean)


async def _ready_unless_stopped(model: LocalModel, call: InferenceCall) -> Host | None:
    """The model's host once it is warm; None when ``call.stop`` came first."""
    if call.stop is None:
        return await model.supervisor.ready(call.first_event_s)
    ready = asyncio.ensure_future(model.supervisor.ready(call.first_event_s))
    stopped = asyncio.ensure_future(call.stop.wait())
    try:
        await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return await ready if ready.done() else None
    finally:
        for task in (ready, stopped):
            task.cancel()
            with suppress(asyncio.CancelledError, AdapterError):
                await task


class _Generation:
    """One call on one engine: the engine's events as the contract's, within the call's limits."""

    def __init__(self, call: InferenceCall, host: Host, begun_s: float) -> None:
        self._call = call
        self._host = host
        self._deadline_s = begun_s + call.deadline_s
        self._limit_s = begun_s + call.first_event_s
        self._usage = Usage()
        self._begun: set[int] = set()

    async def events(self) -> AsyncGenerator[Event, None]:
        call = self._call
        request = EngineRequest(
            request_id=call.attempt_id, chat=call.chat, compute_ns_max=call.compute_ns_max
        )
        watch = None
        if call.stop is not None:
            watch = asyncio.create_task(self._cancel_when(call.stop), name="local-stop")
        try:
            async with aclosing(self._host.submit(request)) as engine_events:
                while True:
                    event = await self._next(engine_events)
                    self._usage = event.usage
                    for translated in self._translate(event):
                        yield translated
                    if isinstance(event, Finished):
                        return
        finally:
            if watch is not None:
                watch.cancel()

    async def _next(self, events: AsyncGenerator[EngineEvent, None]) -> EngineEvent:
        """The engine's next sign of life, in time."""
        try:
            async with asyncio.timeout_at(min(self._limit_s, self._deadline_s)):
                event = await anext(events)
        except TimeoutError:
            raise AdapterError(
                FailureKind.TIMEOUT, "The model took too long.", usage=self._usage
            ) from None
        self._limit_s = asyncio.get_running_loop().time() + self._call.idle_s
        return event

    def _translate(self, event: EngineEvent) -> list[Event]:
        if isinstance(event, Admitted):
            return [Started(upstream_id=event.request_id)]
        if isinstance(event, Piece):
            return [Chunk([self._delta(event)])] if _says_something(event) else []
        if isinstance(event, Finished):
            return [UsageReport(event.usage)]
        if isinstance(event, Failed):
            raise AdapterError(
                event.kind,
                event.message,
                detail=event.detail,
                param=event.param,
                usage=event.usage,
            )
        return []

    def _delta(self, piece: Piece) -> ChoiceDelta:
        delta = Delta()
        if piece.text:
            delta.content = piece.text
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            delta.role = "assistant"
            delta.content = piece.text
        logprobs: Object | None = None
        if piece.logprobs is not None:
            logprobs = {"content": [_logprob(item) for item in piece.logprobs], "refusal": None}
        return ChoiceDelta(
            index=piece.index, delta=delta, logprobs=logprobs, finish_reason=piece.finish_reason
        )

    async def _cancel_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._host.cancel(self._call.attempt_id)


def _says_something(piece: Piece) -> bool:
    return bool(piece.text or piece.logprobs or piece.finish_reason)


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
