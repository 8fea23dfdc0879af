"""Who listens to which request: takes an engine's events apart, in the host's event loop."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from local_runtime.engines.contract import EngineEvent, EngineRequest, Failed, Finished
from plugins.contract import FailureKind, Usage

# What callers are told; the reason is for the operator.
STOPPED = (
    "The engine that runs this model stopped in the middle of this call; it is being restarted. "
    "Try again."
)
OUT_OF_MEMORY = (
    "The engine that runs this model ran out of memory in the middle of this call; it is being "
    "restarted. Try again, with a shorter prompt or fewer answers at once if it happens again."
)
_LAST = (Finished, Failed)


class _Mailbox:
    """One request's events on their way to one listener; an ``asyncio.Queue`` costs twice that."""

    __slots__ = ("_closed", "_events", "_taker", "usage")

    def __init__(self) -> None:
        self.usage = Usage()
        self._events: list[EngineEvent] = []
        self._closed = False
        self._taker: asyncio.Future[None] | None = None

    def put(self, event: EngineEvent) -> None:
        """Ignored after the request's last event, or when whoever listens has waited too long."""
        if self._closed:
            return
        self._closed = isinstance(event, _LAST)
        self.usage = event.usage
        self._events.append(event)
        self._wake()

    def expire(self) -> None:
        """Whoever listens has waited long enough."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    async def take(self) -> list[EngineEvent]:
        """All that is there, at least one. Raises TimeoutError when nothing more will come."""
        while not self._events:
            if self._closed:
                raise TimeoutError
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        events, self._events = self._events, []
        return events


class Streams:
    """The open requests of one engine."""

    def __init__(
        self, submit: Callable[[EngineRequest], None], cancel: Callable[[str], None]
    ) -> None:
        """``submit`` and ``cancel`` send to the engine and do not block."""
        self._submit = submit
        self._cancel = cancel
        self._mailboxes: dict[str, _Mailbox] = {}
        self._working: set[str] = set()
        self._ended: str | None = None

    @property
    def has_work(self) -> bool:
        """Whether the engine owes anybody an end, those included whom nobody listens to."""
        return bool(self._working)

    @property
    def open(self) -> bool:
        """Whether the engine can still answer."""
        return self._ended is None

    async def events(self, request: EngineRequest) -> AsyncGenerator[list[EngineEvent], None]:
        """One request's events; see ``placement/contract.py``."""
        request_id = request.request_id
        assert request_id not in self._mailboxes
        if self._ended is not None:
            yield [_crashed(request_id, Usage(), self._ended)]
            return
        incoming = self._mailboxes[request_id] = _Mailbox()
        over = False
        try:
            self._working.add(request_id)
            self._submit(request)
            while not over:
                events = await incoming.take()
                over = isinstance(events[-1], _LAST)
                yield events
        finally:
            del self._mailboxes[request_id]
            if not over and self._ended is None:
                self._cancel(request_id)

    def expire(self, request_id: str) -> None:
        """Whoever listens to this request gets a TimeoutError after what has come for it."""
        incoming = self._mailboxes.get(request_id)
        if incoming is not None:
            incoming.expire()

    def dispatch(self, events: list[EngineEvent]) -> None:
        """Hand events to their listeners; those of requests nobody listens to are dropped."""
        for event in events:
            if isinstance(event, _LAST):
                self._working.discard(event.request_id)
            incoming = self._mailboxes.get(event.request_id)
            if incoming is not None:
                incoming.put(event)

    def end(self, reason: str, told: str = STOPPED) -> None:
        """The engine is gone: everybody who still waits is ``told``, with the last known usage."""
        if self._ended is None:
            self._ended = reason
            for request_id, incoming in self._mailboxes.items():
                incoming.put(_crashed(request_id, incoming.usage, reason, told))


def _crashed(request_id: str, usage: Usage, reason: str, told: str = STOPPED) -> Failed:
    return Failed(request_id, usage, FailureKind.CRASHED, told, detail=reason)
