"""The local runtime as a provider like any other: ``plugins.contract.Adapter`` over the engines."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

import msgspec

from local_runtime.encoding import TASK_OF, Encoding
from local_runtime.generation import Generation
from local_runtime.kinds import Kind
from local_runtime.media import pictures_of
from local_runtime.runtime import LocalModel, LocalRuntime
from plugins.contract import (
    AdapterError,
    Event,
    FailureKind,
    Fetch,
    InferenceCall,
    Offer,
    Price,
    Usage,
    UsageReport,
)

RETRY_AFTER_S_MAX = 60.0
_MEAN_WEIGHT = 0.1
# A schema is a grammar here, which no answer can leave.
_HELD_TO = frozenset({"structured_outputs"})
_READ = frozenset({"text"})
_SEEN = frozenset({"image"})


class LocalAdapter:
    """Serves every model of a ``LocalRuntime``. Answers come as chunks, streamed or not."""

    def __init__(
        self,
        runtime: LocalRuntime,
        *,
        price_nano_usd_per_second: int,
        provider_id: str = "local",
        fetch: Fetch | None = None,
    ) -> None:
        """``fetch`` reads the pictures that callers name by URL; without it they must send them."""
        self.runtime = runtime
        self._fetch = fetch
        self._provider_id = provider_id
        self._price = Price(
            compute_per_second=price_nano_usd_per_second, free=price_nano_usd_per_second == 0
        )

    def offers(self) -> list[Offer]:
        """One per model and one per adapter of it, whatever their states: calls wait for a model
        that is being loaded."""
        return [
            self._offer(model, name)
            for model in self.runtime.models.values()
            for name in (model.spec.id, *(adapter.id for adapter in model.spec.adapters))
        ]

    def _offer(self, model: LocalModel, name: str) -> Offer:
        if model.kind is not Kind.CHAT:
            return self._encoder_offer(model)
        return Offer(
            model=name,
            provider=self._provider_id,
            upstream_id=name,
            price=self._price,
            context_length=model.context_length,
            supported_params=model.supported_params | _HELD_TO,
            input_modalities=_READ | _SEEN if model.spec.projector else _READ,
            output_modalities=_READ,
            abort_stops_billing=True,
        )

    def _encoder_offer(self, model: LocalModel) -> Offer:
        return Offer(
            model=model.spec.id,
            provider=self._provider_id,
            upstream_id=model.spec.id,
            tasks=(TASK_OF[model.kind],),
            price=self._price,
            context_length=model.context_length,
            supported_params=model.supported_params,
            input_modalities=_READ,
            abort_stops_billing=True,
        )

    async def start(self) -> None:
        """Begin to load; calls may come at once."""
        self.runtime.start()

    async def close(self) -> None:
        await self.runtime.close()

    async def infer(self, call: InferenceCall) -> AsyncGenerator[Event, None]:
        """See the rules in ``plugins/contract.py``."""
        served = self.runtime.served(call.upstream_id)
        if served is None:
            raise AdapterError(
                FailureKind.NOT_FOUND, f"{call.upstream_id} is not served on this machine."
            )
        model, adapter = served
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        wait_s = min(self.runtime.cold_wait_s_max, call.deadline_s)
        with self._place(model):
            media: list[bytes] = []
            if model.spec.projector is not None:
                chat, media = await pictures_of(call.chat, self._fetch)
                call = msgspec.structs.replace(call, request=chat)
            supervisor = model.supervisor
            host = await supervisor.enter(wait_s, may_wait=call.wait_for_model, stop=call.stop)
            if host is None:
                yield UsageReport(Usage())
                return
            try:
                # The wait for the model had a limit of its own; the engine's begins here.
                first_event_s = loop.time() - begun_s + call.first_event_s
                call = msgspec.structs.replace(call, first_event_s=first_event_s)
                generation = (
                    Generation(call, host, begun_s, adapter=adapter, media=media)
                    if model.kind is Kind.CHAT
                    else Encoding(call, host, begun_s)
                )
                async with aclosing(generation.events()) as events:
                    async for event in events:
                        yield event
            finally:
                supervisor.leave()

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
        try:
            yield
        finally:
            model.calls_open -= 1
            took_s = loop.time() - begun_s
            model.call_seconds_mean += _MEAN_WEIGHT * (took_s - model.call_seconds_mean)
