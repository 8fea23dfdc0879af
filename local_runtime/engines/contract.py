"""What an engine is: code that runs weights. Synchronous, driven step by step by its host.

Life: ``load`` once → any number of ``submit``, ``cancel`` and ``step`` → ``unload`` once. One
thread calls all of it, never two at a time; an engine starts no threads that outlive a call of its
own. Everything that crosses the line between host and engine is a tagged msgspec Struct, so that
the same values go through a queue (``inline``) or a pipe (``child``).

Rules:

- ``submit`` checks the request, tokenises it and queues it. What is wrong with the request comes
  back as the only event of that request, a ``Failed``, out of the next ``step``; ``submit`` itself
  does not raise for it.
- Events of one request come in this order: ``Admitted`` once it has a slot, then ``Piece`` and
  ``Worked`` in any number, then exactly one ``Finished`` or ``Failed``. Nothing follows those.
- Every event carries ``usage``: what the request has used up to now, its shares of the current
  step included. So whoever reads the events knows the exact bill at any moment, also when the
  engine dies right after.
- ``step`` measures its own wall time. Time in which something was computed is busy time, and is
  shared out over the requests of that step by the tokens computed for each, in whole nanoseconds:
  ``busy_ns == unbilled_ns + the sum of compute_ns over all requests``, always.
- A request never reports more than its ``compute_ns_max``. The engine predicts what a step will
  cost from the last ones and ends the answer with ``finish_reason="length"`` before it would pass.
  Only when a step took longer than predicted is the rest kept off the bill; it is counted in
  ``unbilled_ns``.
- ``cancel`` takes effect before the next step: the slot is free, and the request's last event is
  ``Finished`` with what it used. An unknown id is ignored.
- An exception out of ``step`` means that the engine is broken: the host throws it away.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from plugins.chat import ChatRequest
from plugins.contract import FailureKind, Usage


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to load. ``path`` is a model file, empty for an engine that needs none.

    ``options`` are the engine's own settings, as strings. ``threads`` and ``context_length`` are
    chosen by the engine where they are None.
    """

    engine: str
    path: str = ""
    options: dict[str, str] = {}
    context_length: int | None = None
    threads: int | None = None
    sequences_max: int = 8


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was loaded: the limits that requests meet, and how long loading took."""

    context_length: int
    sequences_max: int
    threads: int
    load_ms: int


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``request_id`` is unique among those that have not ended."""

    request_id: str
    chat: ChatRequest
    compute_ns_max: int | None = None


class TopToken(msgspec.Struct, frozen=True):
    """One candidate: its text, the bytes of it, and its natural logarithm of probability."""

    token: str
    bytes: list[int]
    logprob: float


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token that was chosen, and the likeliest candidates at that place."""

    token: str
    bytes: list[int]
    logprob: float
    top: list[TopToken]


class Admitted(msgspec.Struct, frozen=True, tag="admitted"):
    """The request has its slots; its prompt is read from the next step on."""

    request_id: str
    usage: Usage


class Piece(msgspec.Struct, frozen=True, tag="piece"):
    """Text of choice ``index``; ``finish_reason`` is set in that choice's last piece.

    ``text`` may be empty: a token can end in the middle of a character, or of a stop string.
    """

    request_id: str
    usage: Usage
    index: int = 0
    text: str = ""
    logprobs: list[TokenLogprob] | None = None
    finish_reason: str | None = None


class Worked(msgspec.Struct, frozen=True, tag="worked"):
    """A part of the prompt was read: no text, but a sign of life and a new ``usage``."""

    request_id: str
    usage: Usage


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The request is over, by itself or by ``cancel``; ``usage`` is its bill."""

    request_id: str
    usage: Usage


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The request cannot go on. The fields are those of ``plugins.contract.AdapterError``."""

    request_id: str
    usage: Usage
    kind: FailureKind
    message: str
    param: str | None = None
    detail: str = ""


EngineEvent = Admitted | Piece | Worked | Finished | Failed


class RequestRefused(Exception):
    """Inside an engine: the request is at fault. Becomes a ``Failed``."""

    def __init__(
        self, message: str, *, param: str, kind: FailureKind = FailureKind.BAD_REQUEST
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.kind = kind


class EngineLoadError(Exception):
    """The model cannot be loaded, and trying again will not mend it. The text is for people."""


class Engine(Protocol):
    """See the rules at the top of this file."""

    @property
    def busy_ns(self) -> int:
        """Wall time of all steps that computed something, since ``load``."""
        ...

    @property
    def unbilled_ns(self) -> int:
        """The part of ``busy_ns`` that is on no request's bill."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has anything to do."""
        ...

    def load(self, spec: EngineSpec, progress: Callable[[float], None]) -> EngineInfo:
        """Load the weights; ``progress`` gets fractions from 0 to 1. Raises EngineLoadError."""
        ...

    def submit(self, request: EngineRequest) -> None:
        """Take a request in."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request before the next step."""
        ...

    def step(self) -> list[EngineEvent]:
        """Do the next piece of work for everybody in the batch, and say what came of it."""
        ...

    def unload(self) -> None:
        """Free everything. Requests that had not ended get no further events."""
        ...
