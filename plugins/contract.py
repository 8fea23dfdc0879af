"""What a provider plugin is. This file imports the standard library, msgspec and its siblings
``chat`` and ``tasks`` only, and every room may import it.

Life of a plugin: ``Plugin`` objects are named in ``builtin.py`` (importing one has no side
effects) → ``settings`` is decoded from the provider's TOML table → ``build(settings, toolbox)``
makes one ``Adapter`` → ``start`` → any number of ``infer`` calls, side by side → ``close``.

Rules of ``infer``:

- It is an async generator of events. Before its first ``Chunk`` it may fail with ``AdapterError``
  and nothing has reached the client; the gateway may then try the next offer. After it a failure
  ends the client's stream with an error event.
- Events come in this order: ``Started`` at most once and first; then, for a chat, ``Chunk`` any
  number of times (``stream=True``, and allowed for ``stream=False``) or one ``Completion`` (only
  for ``stream=False``), and for any other task one ``Produced``; then exactly one ``UsageReport``,
  last. When the provider reports no usage the report counts what was delivered and says
  ``estimated=True``.
- ``call.api_key`` is the one key to use: the operator's, or the caller's own. It is for this
  attempt only; an adapter keeps, logs and caches none.
- URLs that a caller or a provider names are read with ``toolbox.fetch`` only, never directly.
- Setting ``call.stop`` asks for an early end: an adapter whose offer has ``abort_stops_billing``
  then ends the work at its next step and still yields its ``UsageReport``, so that what was used
  is billed exactly. Other adapters may ignore it.
- Closing the generator (``aclose``) stops the work upstream as soon as the provider allows it.
  Closing is how the gateway abandons an attempt; an adapter never keeps a task running after it.
- It raises ``AdapterError`` and nothing else for whatever the provider does. The provider's own
  words go into ``detail`` (for the log, cut to 512 bytes), never into ``message``, except for
  kinds where they tell the caller what is wrong with the request (``bad_request``).
- It never retries: attempts are the gateway's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from plugins.chat import ChatRequest, Choice, ChoiceDelta
from plugins.tasks import CONVERSATIONAL, Media, Output, Request

CONTRACT_VERSION = 2
"""Raised when a plugin has to change. A new field with a default does not raise it."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Measured quantities of one attempt, in buckets that never overlap.

    ``input_tokens`` are those read afresh, as text or pictures: tokens found in a cache, written to
    one, or of sound are in ``cache_read_tokens``, ``cache_write_tokens``, ``audio_input_tokens``
    only. ``reasoning_tokens`` and ``audio_output_tokens`` are not in ``output_tokens``. ``images``
    are those that were made, ``video_ms`` is the length of the video that was; ``characters`` are
    those of a text that was spoken, ``audio_ms`` is the length of the sound that was listened to,
    each only where the provider counts in it. ``compute_ns`` is the hardware's busy time that
    belongs to this call.
    ``cost_nano_usd`` is the provider's own bill, if any: it is recorded, and charged where the
    offer's price says ``as_billed``.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    images: int = 0
    characters: int = 0
    audio_ms: int = 0
    video_ms: int = 0
    compute_ns: int = 0
    cost_nano_usd: int | None = None
    estimated: bool = False


class Started(msgspec.Struct, frozen=True):
    """The provider accepted the work. ``upstream_id`` is its own id of the request, or empty."""

    upstream_id: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a streamed answer: one or more deltas, in order.

    ``alone``: nothing else of this answer is at hand, so that it is not worth waiting to send more
    of it in one piece.
    """

    choices: list[ChoiceDelta]
    alone: bool = False


class Completion(msgspec.Struct, frozen=True):
    """A whole answer."""

    choices: list[Choice]


class Produced(msgspec.Struct, frozen=True):
    """The whole answer of a task other than chat."""

    output: Output


class UsageReport(msgspec.Struct, frozen=True):
    """The last event of every successful attempt."""

    usage: Usage


Event = Started | Chunk | Completion | Produced | UsageReport


class FailureKind(StrEnum):
    """Why an attempt failed, in the gateway's words. The comment says what the gateway does."""

    CONNECT = "connect"  # refused, DNS, TLS: next offer; the circuit counts it
    TIMEOUT = "timeout"  # no headers, no bytes, or too long in all: next offer
    RATE_LIMITED = "rate_limited"  # 429: this key cools for retry_after_s; another, or next offer
    OVERLOADED = "overloaded"  # 503, 529: next offer
    UPSTREAM = "upstream"  # other 5xx, or a redirect: next offer
    PROTOCOL = "protocol"  # not what the format says: next offer
    AUTH = "auth"  # 401, 403: this key is bad; another, or next offer; the text is never shown
    NO_CREDIT = "no_credit"  # 402: our account there is empty: next offer
    NOT_FOUND = "not_found"  # the provider does not know the model: next offer
    BAD_REQUEST = "bad_request"  # 400, 422: the caller's fault: 400 to the client, no failover
    REFUSED = "refused"  # the provider's policy forbids the content: 403 to the client, no failover
    CONTEXT_LENGTH = "context_length"  # the prompt does not fit: 400, no failover
    CRASHED = "crashed"  # a local engine died: next offer
    LOADING = "loading"  # a local model is not warm yet: 503 with Retry-After


class AdapterError(Exception):
    """The one exception an adapter raises.

    ``message`` may reach the caller; ``detail`` goes to the log only. ``usage`` carries what had
    been used up when the attempt failed, where the adapter can know it (a local engine can).
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        detail: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        param: str | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.detail = detail[:512]
        self.status = status
        self.retry_after_s = retry_after_s
        self.param = param
        self.usage = usage


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one offer costs. Token prices are nano-USD per 10^6 tokens, ``image`` and ``character``
    nano-USD per 10^6 of them, ``per_request`` nano-USD for a call that used anything, and
    ``audio_second`` (heard), ``video_second`` (made) and ``compute_per_second`` nano-USD per
    second.

    ``$0.20 per million tokens`` is ``input=200_000_000``. A bucket without a price of its own is
    charged as the bucket it came from: cache reads, cache writes and sound as input, reasoning and
    sound as output. ``as_billed``: the provider's own bill is charged where its answer has one; the
    rest still bounds the call. An offer whose price is nothing at all is refused, unless ``free``.
    """

    input: int = 0
    output: int = 0
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image: int = 0
    character: int = 0
    audio_second: int = 0
    video_second: int = 0
    per_request: int = 0
    compute_per_second: int = 0
    as_billed: bool = False
    free: bool = False


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One model as served by one provider.

    The host puts the configured price that is in force in place of ``price``, and the configured
    labels in place of ``labels``; a call keeps the offer it was planned with. ``tasks`` are the
    Hub's names of what it does. ``supported_params`` names the request parameters that the adapter
    honours (``None``: it passes on all of them), ``structured_outputs`` among them where a JSON
    schema is held to. ``input_modalities`` are text, image, audio, video and file (``None``: not
    known, so nothing is ruled out). ``abort_stops_billing`` is true where closing ``infer`` ends
    the cost at once, as on hardware of our own.
    """

    model: str
    provider: str
    upstream_id: str
    tasks: tuple[str, ...] = (CONVERSATIONAL,)
    price: Price
    context_length: int | None = None
    output_tokens_max: int | None = None
    supported_params: frozenset[str] | None = None
    input_modalities: frozenset[str] | None = None
    output_modalities: frozenset[str] | None = None
    labels: frozenset[str] = frozenset()
    quantization: str | None = None
    is_model_author: bool = False
    abort_stops_billing: bool = False


class InferenceCall(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt's work order.

    ``request.model`` is the client's name for the model; the adapter sends ``upstream_id``.
    ``api_key`` is the provider key of this attempt, None where the provider needs none.
    ``compute_ns_max`` is the compute that the hold pays for, None where compute is not billed: an
    adapter that bills compute reports ``compute_ns``, and ends the answer before it uses more (with
    ``finish_reason="length"`` where it runs the engine itself).
    ``deadline_s`` bounds the whole attempt, ``first_event_s`` the wait for the first event,
    ``idle_s`` the wait between two.
    The rest is for hardware of one's own: ``fairness_key`` says whose turn it is (calls of one key
    wait for each other before others wait for them), ``cache_scope`` with whom the memory of
    prompts is shared (only within the same scope; None: not at all), and ``wait_for_model`` whether
    the call waits for a model that must be loaded first, or fails at once with the time that takes.
    """

    call_id: str
    attempt_id: str
    upstream_id: str
    request: Request
    stream: bool
    api_key: str | None = None
    compute_ns_max: int | None = None
    stop: asyncio.Event | None = None
    first_event_s: float = 60.0
    idle_s: float = 30.0
    deadline_s: float = 600.0
    fairness_key: str = ""
    cache_scope: str | None = ""
    wait_for_model: bool = True

    def __repr__(self) -> str:
        return f"InferenceCall({self.attempt_id}, {self.upstream_id})"  # no key, no prompt

    @property
    def chat(self) -> ChatRequest:
        """The request of a chat call. Raises AdapterError for any other task's."""
        if isinstance(self.request, ChatRequest):
            return self.request
        raise AdapterError(FailureKind.NOT_FOUND, "this provider serves chats only")


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a provider, prices already exact integers: a configured one, or one that the
    provider itself named.

    ``price`` is the first that was configured; of later ones the host takes care. What is None is
    not known: the adapter puts in what it knows of its provider.
    """

    id: str
    upstream_id: str
    tasks: tuple[str, ...] = (CONVERSATIONAL,)
    price: Price
    context_length: int | None = None
    output_tokens_max: int | None = None
    supported_params: frozenset[str] | None = None
    input_modalities: frozenset[str] | None = None
    output_modalities: frozenset[str] | None = None
    quantization: str | None = None
    is_model_author: bool = False

    def offer(
        self,
        provider: str,
        *,
        supported_params: frozenset[str] | None = None,
        abort_stops_billing: bool = False,
    ) -> Offer:
        """The offer of ``provider`` for this model, all that is configured included.

        ``supported_params`` is what the adapter honours; a model's own list wins over it.
        """
        own = self.supported_params
        return Offer(
            model=self.id,
            provider=provider,
            upstream_id=self.upstream_id,
            tasks=self.tasks,
            price=self.price,
            context_length=self.context_length,
            output_tokens_max=self.output_tokens_max,
            supported_params=supported_params if own is None else own,
            input_modalities=self.input_modalities,
            output_modalities=self.output_modalities,
            quantization=self.quantization,
            is_model_author=self.is_model_author,
            abort_stops_billing=abort_stops_billing,
        )


Fetch = Callable[[str], Awaitable[Media]]
"""Read what a URL of the caller's or the provider's names: its bytes and media type. Only public
addresses (and those the operator allows) are reached, no redirect is followed, and size and time
are bounded. Raises AdapterError (BAD_REQUEST) with a message for the caller."""


class Toolbox(msgspec.Struct, frozen=True, kw_only=True):
    """What the host lends an adapter. ``provider_id`` is the id from the configuration.

    ``models`` are the configured ones. ``request_id_header`` is set where the provider is asked
    afterwards what calls cost: the reply names the call there, and ``Started`` comes with that id
    as soon as the headers have arrived.
    """

    provider_id: str
    models: tuple[ModelEntry, ...]
    log: logging.Logger
    monotonic_ns: Callable[[], int]
    user_agent: str
    fetch: Fetch
    request_id_header: str | None = None


class Adapter(Protocol):
    """Code that speaks to one provider."""

    def offers(self) -> list[Offer]:
        """What it serves now. Cheap, no I/O: called whenever the catalog is rebuilt."""
        ...

    async def start(self) -> None:
        """Open pools and children. Fails only for what no retry can mend."""
        ...

    def infer(self, call: InferenceCall) -> AsyncIterator[Event]:
        """See the rules at the top of this file."""
        ...

    async def close(self) -> None:
        """Free everything; ``infer`` is not called again. Running generators fail."""
        ...


@runtime_checkable
class Discovering(Protocol):
    """An adapter that can ask its provider which models it serves. Optional."""

    async def discover(self, api_key: str | None) -> list[ModelEntry]:
        """What the provider lists now: its names as ``id`` and ``upstream_id``, and what it says of
        prices (``Price()`` where nothing), context length and abilities. Raises AdapterError.
        """
        ...

    def offer_of(self, entry: ModelEntry) -> Offer:
        """The offer for a model that was found, as ``offers`` would make it from a configured one.
        Cheap, no I/O.
        """
        ...


@runtime_checkable
class Reaching(Protocol):
    """An adapter that can try whether its provider is there at all. Optional."""

    async def reach(self) -> None:
        """Connect, TLS included, and send nothing. Raises AdapterError."""
        ...


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every plugin's settings: a plugin adds fields with defaults. Keys are not in them:
    each call brings its own.
    """

    base_url: str | None = None


class Plugin(msgspec.Struct, frozen=True, kw_only=True):
    """The package that carries an adapter. Making one has no side effects.

    ``title`` is the provider's own name, for people. ``needs_key`` is false where calls without a
    key can succeed, as with servers of one's own.
    """

    kind: ClassVar[str] = "provider"
    name: str
    contract_version: int
    title: str = ""
    needs_key: bool = True
    settings: type[ProviderSettings]
    build: Callable[[Any, Toolbox], Adapter]
