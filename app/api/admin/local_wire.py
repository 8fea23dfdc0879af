"""What the routes about local models take and give, for their handlers and for the CLI.

Imports no web framework. Sizes are bytes, times milliseconds unless they say otherwise.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from app.api.admin.wire import Name


class LocalModelLine(msgspec.Struct, frozen=True, kw_only=True):
    """One model of this machine. ``state`` is a word of the glossary, ``progress`` (0 to 1) that of
    the last load or pull.

    ``memory_bytes`` is what it holds now, ``needs_bytes`` what it would; both measured once it was
    loaded. ``estimated_s`` are the seconds until it answers, 0 when it does. ``idle_s``: since its
    last call, None before the first. Counts and sums are since the server started; ``load_ms`` is
    the house's, ``unbilled_ms`` the part of ``busy_ms`` that nobody pays. ``cells`` are those of
    the engine's cache, one for a token; ``kept_tokens`` lie in memory beside it. ``out_of_memory``
    is how often the engine ended because it got no more memory.
    """

    model: str
    state: str
    engine: str
    placement: str
    progress: float
    waits_for_room: bool
    memory_bytes: int
    needs_bytes: int
    estimated_s: float
    calls_running: int
    calls_waiting: int
    idle_s: float | None
    keep: bool
    keep_alive_s: float
    busy_ms: float
    unbilled_ms: float
    sequences_running: int
    cells: int
    cells_used: int
    kept_tokens: int
    loads: int
    load_ms: int
    crashes: int
    out_of_memory: int
    evictions: int
    pid: int | None = None
    error: str | None = None


class LocalModelList(msgspec.Struct, frozen=True):
    """All of them, and what all together hold and may hold."""

    data: list[LocalModelLine]
    memory_bytes: int
    memory_bytes_max: int


class NamedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model is to be loaded or unloaded."""

    model: Name


class LocalEventLine(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a model: it went to ``state``, its ``progress`` changed, it was
    ``evicted``, or ``crashed``. ``id`` counts from 1 since the server started."""

    id: int
    at_ms: int
    event: str
    model: str
    state: str
    progress: float
    memory_bytes: int
    message: str


class LocalModels(Protocol):
    """The models of this machine, as the ``/api`` surface and the metrics see them."""

    def every(self) -> LocalModelList:
        """All of them now."""
        ...

    def load(self, model: str) -> None:
        """Begin to load it, forgetting its crashes. Raises NotFound; Conflict where nothing can be
        loaded, since no server runs."""
        ...

    def unload(self, model: str) -> None:
        """Have it leave once its running calls have ended. Raises as ``load``."""
        ...

    def events(self, after: int | None) -> AsyncGenerator[LocalEventLine | None, None]:
        """What happens from now on, and what is still known of what came after event ``after``;
        None from time to time when nothing does. Ends when the server stops."""
        ...
