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
  ``Worked`` in any number (and one ``Encoded``, for what is to be encoded), then exactly one
  ``Finished`` or ``Failed``. Nothing follows those.
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


class AdapterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter that requests may name: a GGUF file, applied with ``scale``."""

    path: str
    scale: float = 1.0


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to load. ``path`` is a model file, empty for an engine that needs none.

    ``options`` are the engine's own settings, as strings. What is None is chosen by the engine from
    what it finds: the file, the free memory, the processor. ``projector_path`` is the file that
    turns pictures into the model's own vectors, ``draft_path`` a small model of the same vocabulary
    that guesses ahead; both empty where there is none. ``cache_type`` is the type of the KV cache,
    ``batch_tokens`` the most tokens of one step.
    """

    engine: str
    path: str = ""
    options: dict[str, str] = {}
    context_length: int | None = None
    threads: int | None = None
    sequences_max: int = 16
    cache_type: str = "f16"
    flash_attention: bool | None = None
    gpu_layers: int | None = None
    batch_tokens: int | None = None
    memory_bytes_max: int | None = None
    projector_path: str = ""
    draft_path: str = ""
    speculation: bool = True
    adapters: dict[str, AdapterSpec] = {}


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was loaded: the limits that requests meet, what it takes, and how long loading took.

    ``memory_bytes`` is what the process grew by, weights and cache included (0: not measured);
    ``device_bytes`` the same on accelerators. ``output_size``: numbers in an encoder's vectors.
    """

    context_length: int
    sequences_max: int
    threads: int
    load_ms: int
    memory_bytes: int = 0
    device_bytes: int = 0
    gpu_layers: int = 0
    output_size: int = 0


class EncodeTask(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to turn into vectors, or, with a ``query``, to be scored against it.

    A text may come as token ids. ``truncate``: cut what is too long for the model, instead of
    refusing it. ``size``: only the first so many numbers of each vector, scaled to length 1 again.
    """

    texts: list[str | list[int]]
    query: str | None = None
    truncate: bool = False
    size: int | None = None


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request: a chat, or something to encode. ``request_id`` is unique among the open ones.

    ``media`` are the bytes of the chat's pictures, in the order of their parts. ``adapter`` names
    one of the spec's, empty for the model as it is. ``fairness_key`` and ``cache_scope`` are those
    of ``plugins.contract.InferenceCall``.
    """

    request_id: str
    chat: ChatRequest | None = None
    encode: EncodeTask | None = None
    media: list[bytes] = []
    adapter: str = ""
    compute_ns_max: int | None = None
    fairness_key: str = ""
    cache_scope: str | None = ""


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


class Admitted(msgspec.Struct, frozen=True, array_like=True, tag="admitted"):
    """The request has its slots; its prompt is read from the next step on."""

    request_id: str
    usage: Usage


class ToolCallPiece(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the answer's tool call number ``index``: ``id`` and ``name`` come first and once,
    then the arguments, as JSON text in any number of parts.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Piece(msgspec.Struct, frozen=True, array_like=True, tag="piece"):
    """Text of choice ``index``; ``finish_reason`` is set in that choice's last piece.

    ``text`` may be empty: a token can end in the middle of a character, or of a stop string.
    ``reasoning`` is what the model thought before it answered.
    """

    request_id: str
    usage: Usage
    index: int = 0
    text: str = ""
    logprobs: list[TokenLogprob] | None = None
    finish_reason: str | None = None
    reasoning: str = ""
    tool_calls: list[ToolCallPiece] | None = None


class Encoded(msgspec.Struct, frozen=True, array_like=True, tag="encoded"):
    """The answer to an ``EncodeTask``, in the order of its texts: vectors as the bytes of 32-bit
    floats, little endian, or scores.
    """

    request_id: str
    usage: Usage
    vectors: list[bytes] = []
    scores: list[float] = []


class Worked(msgspec.Struct, frozen=True, array_like=True, tag="worked"):
    """A part of the prompt was read: no text, but a sign of life and a new ``usage``."""

    request_id: str
    usage: Usage


class Finished(msgspec.Struct, frozen=True, array_like=True, tag="finished"):
    """The request is over, by itself or by ``cancel``; ``usage`` is its bill."""

    request_id: str
    usage: Usage


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The request cannot go on. The fields are those of ``plugins.contract.AdapterError``."""

    request_id: str
    usage: Usage
    kind: FailureKind
    message: str
    param: str | None = None
    detail: str = ""


EngineEvent = Admitted | Piece | Encoded | Worked | Finished | Failed


class Occupancy(msgspec.Struct, frozen=True, kw_only=True):
    """How full an engine is: requests' sequences that run, the cells of its cache, and the tokens
    that are kept beside it for prompts that start alike.
    """

    sequences_running: int = 0
    cells: int = 0
    cells_used: int = 0
    kept_tokens: int = 0


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
    def occupancy(self) -> Occupancy:
        """How full it is after the last step."""
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
