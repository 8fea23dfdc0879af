"""Who listens to which request: takes an engine's events apart, in the host's event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from local_runtime.engines.contract import EngineEvent, EngineRequest, Failed, Finished
from plugins.contract import FailureKind, Usage


class _Expired:
    """In a mailbox: whoever listens has waited long enough."""


class _Mailbox:
    """One request's events on their way to one listener; an ``asyncio.Queue`` costs twice that."""

    __slots__ = ("_items", "_taker")

    def __init__(self) -> None:
        self._items: deque[EngineEvent | _Expired] = deque()
        self._taker: asyncio.Future[None] | None = None

    def put(self, item: EngineEvent | _Expired) -> None:
        self._items.append(item)
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    async def take(self) -> EngineEvent:
        """The next event. Raises TimeoutError."""
        while not self._items:
            self._taker = asyncio.get_running_loop().create_future()
            await self._taker
        item = self._items.popleft()
        if isinstance(item, _Expired):
            raise TimeoutError
        return item


class Streams:
    """The open requests of one engine."""

    def __init__(
        self, submit: Callable[[EngineRequest], None], cancel: Callable[[str], None]
    ) -> None:
        """``submit`` and ``cancel`` send to the engine and do not block."""
        self._submit = submit
        self._cancel = cancel
        self._mailboxes: dict[str, _Mailbox] = {}
        self._usages: dict[str, Usage] = {}
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

    async def events(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """One request's events; see ``placement/contract.py``."""
        request_id = request.request_id
        assert request_id not in self._mailboxes
        if self._ended is not None:
            yield _crashed(request_id, Usage(), self._ended)
            return
        incoming = self._mailboxes[request_id] = _Mailbox()
        self._usages[request_id] = Usage()
        over = False
        try:
            self._working.add(request_id)
            self._submit(request)
            while not over:
                event = await incoming.take()
                over = isinstance(event, Finished | Failed)
                yield event
        finally:
            del self._mailboxes[request_id], self._usages[request_id]
            if not over and self._ended is None:
                self._cancel(request_id)

    def expire(self, request_id: str) -> None:
        """Whoever listens to this request gets a TimeoutError after what has come for it."""
        incoming = self._mailboxes.get(request_id)
        if incoming is not None:
            incoming.put(_Expired())

    def dispatch(self, events: list[EngineEvent]) -> None:
        """Hand events to their listeners; those of requests nobody listens to are dropped."""
        for event in events:
            if isinstance(event, Finished | Failed):
                self._working.discard(event.request_id)
            incoming = self._mailboxes.get(event.request_id)
            if incoming is not None:
                self._usages[event.request_id] = event.usage
                incoming.put(event)

    def end(self, reason: str) -> None:
        """The engine is gone: everybody who still waits is told, with the last known usage."""
        if self._ended is None:
            self._ended = reason
            for request_id, incoming in self._mailboxes.items():
                incoming.put(_crashed(request_id, self._usages[request_id], reason))


def _crashed(request_id: str, usage: Usage, reason: str) -> Failed:
    return Failed(
        request_id,
        usage,
        FailureKind.CRASHED,
        "The engine that runs this model stopped in the middle of this call.",
        detail=reason,
    )
