"""One try at one offer: the work order it gets, its events, and what its failure means."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from copy import copy
from typing import Any, Literal, cast

from msgspec import UNSET

from app.errors import (
    Availability,
    CallError,
    ContentRefused,
    InvalidRequest,
    ModelLoading,
    OutOfCredits,
    PermissionDenied,
    RateLimited,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from app.gateway.call import Call
from app.gateway.call_spans import accepted
from app.gateway.estimate import Bounds, compute_ns_to_send, limit_to_send
from app.gateway.overdue import Overdue
from app.gateway.pump import Pump
from app.routing.filters import dropped
from app.routing.key_pools import ProviderKey
from plugins.chat import ChatRequest
from plugins.contract import (
    AdapterError,
    Chunk,
    Completion,
    Event,
    FailureKind,
    InferenceCall,
    Offer,
    Produced,
    Started,
    UsageReport,
)
from plugins.tasks import CONVERSATIONAL, OUTPUT_OF, Output

OnStarted = Callable[[str], Awaitable[None]]
"""What to do with the provider's own id of an attempt before anything of the answer goes on."""

# What a provider that bills on regardless may still send to a client that left (ledger.md I10).
DRAIN_SECONDS_MAX = 30.0
DRAIN_PIECES_MAX = 4096
# An adapter bounds itself by the order's deadlines; this catches one that does not.
_GRACE_S = 5.0

log = logging.getLogger("turnpike.gateway")

# The caller's own mistake: another provider would refuse it too.
_NO_FAILOVER = frozenset({FailureKind.BAD_REQUEST, FailureKind.CONTEXT_LENGTH, FailureKind.REFUSED})
# Says nothing about the offer's health: of these, some are the key's.
_NOT_ILLNESS = _NO_FAILOVER | {
    FailureKind.LOADING,
    FailureKind.NOT_FOUND,
    FailureKind.RATE_LIMITED,
    FailureKind.AUTH,
    FailureKind.NO_CREDIT,
}


PrefixSharing = Literal["everyone", "payer", "user", "nobody"]
"""Among whom prompts that start alike are read once, on hardware of one's own."""


class Deadlines:
    """How long an attempt at one provider may take, in seconds."""

    __slots__ = ("first_event_s", "idle_s", "total_s")

    def __init__(
        self, first_event_s: float = 60.0, idle_s: float = 30.0, total_s: float = 600.0
    ) -> None:
        self.first_event_s = first_event_s
        self.idle_s = idle_s
        self.total_s = total_s


def work_order(
    call: Call,
    offer: Offer,
    key: ProviderKey,
    bounds: Bounds,
    deadlines: Deadlines,
    stop: asyncio.Event | None,
    sharing: PrefixSharing = "everyone",
) -> InferenceCall:
    """What the adapter is asked to do: the request without what was for routing and what this offer
    cannot honour. The output limit that the hold pays for is always sent."""
    request = copy(call.request)
    request.models = request.provider = UNSET
    call.dropped_params = ()
    if offer.supported_params is not None:
        call.dropped_params = dropped(offer, request.given_params())
        for name in call.dropped_params:
            setattr(request, name, UNSET)
    # With a key of the payer's own nothing is held, and nothing bounds the answer.
    held = None if key.owner_id is not None else call.hold.amount_nano_usd
    if isinstance(request, ChatRequest):
        is_whole = held is not None and held >= bounds.amount_nano_usd
        if not is_whole or offer.context_length is not None or not request.output_tokens_limit():
            limit = limit_to_send(request, offer, held, bounds.input_tokens)
            if limit is not None:
                _limit(request, limit)
    return InferenceCall(
        call_id=call.id,
        attempt_id=f"{call.id}-{call.attempts}",
        upstream_id=offer.upstream_id,
        request=request,
        stream=call.streamed,
        api_key=key.secret,
        compute_ns_max=compute_ns_to_send(offer, held),
        stop=stop,
        wait_for_model=call.wait_for_model,
        fairness_key=call.principal.user_id,
        cache_scope=cache_scope(call, sharing),
        # A provider that does not stream says nothing, not even its headers, before it is done.
        first_event_s=deadlines.first_event_s if call.streamed else deadlines.total_s,
        idle_s=deadlines.idle_s,
        deadline_s=deadlines.total_s,
    )


def cache_scope(call: Call, sharing: PrefixSharing) -> str | None:
    """With whom the memory of this call's prompt may be shared; None: with nobody."""
    if sharing == "payer":
        return call.hold.payer_id
    if sharing == "user":
        return call.principal.user_id
    return "" if sharing == "everyone" else None


def _limit(request: ChatRequest, limit: int) -> None:
    """Set the limit under the name that the client uses; under both where it uses both, since
    nobody knows which of them the provider reads."""
    if not isinstance(request.max_completion_tokens, int):
        request.max_tokens = limit
        return
    request.max_completion_tokens = limit
    if isinstance(request.max_tokens, int):
        request.max_tokens = limit


async def attempt(
    events: AsyncIterator[Event],
    order: InferenceCall,
    pump: Pump,
    overdue: Overdue,
    on_started: OnStarted | None = None,
) -> bool:
    """Run one attempt into the pump. True: it ended with its usage on the call.

    False: the client had left, and the attempt was abandoned because the provider would have gone
    on for too long. Raises AdapterError only; the generator is closed in every case.
    """
    task = cast("asyncio.Task[object]", asyncio.current_task())
    until = asyncio.get_running_loop().time() + order.deadline_s + _GRACE_S
    drain = _Drain(pump.call, overdue, task, until)
    overdue.watch(task, until)
    try:
        return await _run(events, order, pump, drain, on_started)
    except AdapterError:
        raise
    except asyncio.CancelledError:
        if not overdue.forget(task):  # somebody else's
            raise
        task.uncancel()
        if drain.began:
            return False
        raise AdapterError(FailureKind.TIMEOUT, "the provider took too long") from None
    except Exception as error:
        log.exception("call %s: a fault of the adapter", pump.call.id)
        kind = FailureKind.PROTOCOL
        raise AdapterError(kind, "the adapter failed", detail=repr(error)) from error
    finally:
        overdue.forget(task)


async def _run(
    iterator: AsyncIterator[Event],
    order: InferenceCall,
    pump: Pump,
    drain: "_Drain",
    on_started: OnStarted | None,
) -> bool:
    call = pump.call
    pieces_max = _pieces_max(order, call.offer)
    async with aclosing(cast(Any, iterator)) as events:  # the contract: an async generator
        async for event in events:
            if isinstance(event, Chunk):
                if call.first_token_ns is None:
                    call.first_token_ns = pump.now_ns()
                await pump.put(event.choices, alone=event.alone)
                if call.delivered_pieces > pieces_max:
                    raise AdapterError(
                        FailureKind.PROTOCOL, "the provider went on far past the token limit"
                    )
            elif isinstance(event, Completion):
                pump.put_completion(event.choices)
            elif isinstance(event, Produced):
                pump.put_output(_checked(event.output, order))
            elif isinstance(event, UsageReport):
                _check_made(pump)
                call.usage = event.usage
                return True
            elif isinstance(event, Started):
                accepted(call)
                if on_started is not None and event.upstream_id:
                    await on_started(event.upstream_id)
            if call.client_left and call.streamed and drain.is_over():
                return False
    raise AdapterError(FailureKind.PROTOCOL, "the provider's answer ended without its usage")


def _checked(output: Output, order: InferenceCall) -> Output:
    """The output, if it is what the task ends with: a plugin's mistake must not reach a client."""
    task = order.request.task
    wanted = OUTPUT_OF.get(task)
    if wanted is None or not isinstance(output, wanted):
        raise AdapterError(
            FailureKind.PROTOCOL,
            "the provider made something else than was asked for",
            detail=f"{type(output).__name__} for {task}",
        )
    return output


def _check_made(pump: Pump) -> None:
    """Every task but chat ends with something."""
    if pump.output is None and pump.call.request.task != CONVERSATIONAL:
        raise AdapterError(FailureKind.PROTOCOL, "the provider made nothing")


class _Drain:
    """What a provider may still send once the client has left."""

    __slots__ = ("_call", "_overdue", "_pieces_before", "_task", "_until", "began")

    def __init__(
        self, call: Call, overdue: Overdue, task: "asyncio.Task[object]", until: float
    ) -> None:
        self._call = call
        self._overdue = overdue
        self._task = task
        self._until = until
        self._pieces_before = 0
        self.began = False

    def is_over(self) -> bool:
        """Asked after each event from the leaving on; the first time sets the deadline."""
        if not self.began:
            self.began, self._pieces_before = True, self._call.delivered_pieces
            latest = asyncio.get_running_loop().time() + DRAIN_SECONDS_MAX
            self._overdue.watch(self._task, min(self._until, latest))
            return False
        return self._call.delivered_pieces - self._pieces_before > DRAIN_PIECES_MAX


def _pieces_max(order: InferenceCall, offer: Offer) -> int:
    """More pieces than an answer within its limit can have: a piece is at least one token, and
    twice the limit leaves room for providers that cut finer.
    """
    request = order.request
    tokens_max = request.output_tokens_limit() or offer.context_length or 0
    return 2 * request.answers() * tokens_max + 64


def may_fail_over(failure: AdapterError) -> bool:
    """Whether another offer might do better."""
    return failure.kind not in _NO_FAILOVER


def is_illness(failure: AdapterError) -> bool:
    """Whether the failure counts against the offer's circuit."""
    return failure.kind not in _NOT_ILLNESS


def answer_to(failure: AdapterError, offer: Offer, *, own_key: bool) -> CallError:
    """The error the client gets when no attempt is left; never a provider's own words on a 5xx.

    ``own_key``: the attempt was made with the payer's own provider key, which is theirs to mend.
    """
    kind, model = failure.kind, offer.model
    if kind is FailureKind.BAD_REQUEST:
        return InvalidRequest(failure.message, param=failure.param)
    if kind is FailureKind.CONTEXT_LENGTH:
        return InvalidRequest(
            failure.message, param=failure.param or "messages", code="context_length_exceeded"
        )
    if kind is FailureKind.REFUSED:
        return ContentRefused(failure.message, param=failure.param)
    if own_key and kind in {FailureKind.AUTH, FailureKind.NO_CREDIT}:
        return _own_key_failed(kind, offer.provider)
    retry_after_s = None if failure.retry_after_s is None else max(1, round(failure.retry_after_s))
    answer = _answer_to_providers_fault(failure, model, retry_after_s)
    answer.availability = Availability(
        code="capacity_exhausted" if answer.status == 429 else "temporarily_unavailable",
        retryable=True,
        retry_after=answer.retry_after_s,
        requested_models=[model],
        affected_providers=[offer.provider],
    )
    return answer


def _own_key_failed(kind: FailureKind, provider: str) -> CallError:
    if kind is FailureKind.NO_CREDIT:
        return OutOfCredits(
            f"Your own account at {provider!r} has no credit. Top it up there, or remove your"
            " provider key to pay here.",
            code="provider_key_without_credit",
        )
    return PermissionDenied(
        f"{provider!r} refuses your own provider key. Set a good one, or remove it to pay here.",
        code="provider_key_refused",
    )


def _answer_to_providers_fault(
    failure: AdapterError, model: str, retry_after_s: int | None
) -> CallError:
    kind = failure.kind
    if kind is FailureKind.RATE_LIMITED:
        return RateLimited(
            f"Every provider of {model!r} is rate limited at the moment. Try again shortly.",
            retry_after_s=retry_after_s or 1,
        )
    if kind is FailureKind.LOADING:
        return ModelLoading(failure.message, failure.retry_after_s or 1.0)
    if kind is FailureKind.OVERLOADED:
        return Unavailable(
            f"{model!r} is overloaded. Try again shortly.",
            code="overloaded",
            retry_after_s=retry_after_s or 1,
        )
    if kind is FailureKind.TIMEOUT:
        return UpstreamTimeout(f"{model!r} did not answer in time. Try again.")
    if kind is FailureKind.CRASHED:
        return UpstreamFailed(f"{model!r}: {failure.message}", code="engine_crashed")
    return UpstreamFailed(f"No provider of {model!r} could answer. Try again.")
