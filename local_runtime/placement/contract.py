"""What a host is: the object that holds one engine where it is placed. One host, one life.

``start`` once → any number of ``submit`` and ``cancel`` → ``close`` once, or the engine dies by
itself. A host that has died or was closed is thrown away; restarting is the supervisor's.

Rules:

- ``start`` loads the model and returns what was loaded. It raises EngineLoadError for what no
  retry can mend, HostDied when the engine died while loading.
- ``submit`` gives the events of one request in order, those together that came together, ending
  after ``Finished`` or ``Failed``. It never blocks: what arrives is buffered, bounded by the
  context length. Closing the iterator early cancels the request.
- ``cancel`` asks for an early end; the iterator still ends with ``Finished`` and its bill.
- ``expire`` is for a listener whose patience is over: the iterator raises TimeoutError, and the
  request is cancelled. A timer around each wait would cost more than the wait for a token.
- When the engine dies, every open iterator ends with a ``Failed`` of kind ``crashed`` that carries
  the usage of the last event before it. ``died`` then returns, once and for all.
- All of it is called from one event loop.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import msgspec

from local_runtime.engines.contract import EngineEvent, EngineInfo, EngineRequest, Occupancy


class HostStats(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's time since it was loaded, and how full it is. ``pid`` is its process."""

    busy_ns: int = 0
    unbilled_ns: int = 0
    occupancy: Occupancy = Occupancy()
    pid: int | None = None


class HostDied(Exception):
    """The engine is gone; the text says what is known of why."""


class Host(Protocol):
    """See the rules at the top of this file."""

    @property
    def stats(self) -> HostStats:
        """As of the last event."""
        ...

    @property
    def alive(self) -> bool:
        """False as soon as the engine is known to be gone, before any iterator has ended."""
        ...

    async def start(self, progress: Callable[[float], None]) -> EngineInfo:
        """Bring the engine up and load the model."""
        ...

    def submit(self, request: EngineRequest) -> AsyncGenerator[list[EngineEvent], None]:
        """Have one request generated. An id that is in use is a bug of the caller."""
        ...

    def cancel(self, request_id: str) -> None:
        """End one request early; unknown ids are ignored."""
        ...

    def expire(self, request_id: str) -> None:
        """Raise TimeoutError out of one request's iterator; unknown ids are ignored."""
        ...

    async def died(self) -> str:
        """Wait until the engine has died; what is known of why. Never returns after ``close``."""
        ...

    async def close(self) -> None:
        """End the engine and free what it held. Open iterators end as after a death."""
        ...
