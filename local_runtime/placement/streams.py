"""Who listens to which request: takes an engine's events apart, in the host's event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from local_runtime.engines.contract import EngineEvent, EngineRequest, Failed, Finished
from plugins.contract import FailureKind, Usage


class Streams:
    """The open requests of one engine."""

    def __init__(
        self, submit: Callable[[EngineRequest], None], cancel: Callable[[str], None]
    ) -> None:
        """``submit`` and ``cancel`` send to the engine and do not block."""
        self._submit = submit
        self._cancel = cancel
        self._queues: dict[str, asyncio.Queue[EngineEvent]] = {}
        self._usages: dict[str, Usage] = {}
        self._ended: str | None = None

    @property
    def open(self) -> bool:
        """Whether the engine can still answer."""
        return self._ended is None

    async def events(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """One request's events; see ``placement/contract.py``."""
        request_id = request.request_id
        assert request_id not in self._queues
        if self._ended is not None:
            yield _crashed(request_id, Usage(), self._ended)
            return
        incoming = self._queues[request_id] = asyncio.Queue()
        self._usages[request_id] = Usage()
        over = False
        try:
            self._submit(request)
            while not over:
                event = await incoming.get()
                over = isinstance(event, Finished | Failed)
                yield event
        finally:
            del self._queues[request_id], self._usages[request_id]
            if not over and self._ended is None:
                self._cancel(request_id)

    def dispatch(self, events: list[EngineEvent]) -> None:
        """Hand events to their listeners; those of requests nobody listens to are dropped."""
        for event in events:
            incoming = self._queues.get(event.request_id)
            if incoming is not None:
                self._usages[event.request_id] = event.usage
                incoming.put_nowait(event)

    def end(self, reason: str) -> None:
        """The engine is gone: everybody who still waits is told, with the last known usage."""
        if self._ended is None:
            self._ended = reason
            for request_id, incoming in self._queues.items():
                incoming.put_nowait(_crashed(request_id, self._usages[request_id], reason))


def _crashed(request_id: str, usage: Usage, reason: str) -> Failed:
    return Failed(
        request_id,
        usage,
        FailureKind.CRASHED,
        "The engine that runs this model stopped in the middle of this call.",
        detail=reason,
    )
