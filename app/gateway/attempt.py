"""One try at one offer: the work order it gets, its events, and what its failure means."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

from msgspec.structs import replace

from app.errors import (
    CallError,
    InvalidRequest,
    RateLimited,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)
from app.gateway.call import Call
from app.gateway.estimate import Bounds, compute_ns_to_send, output_tokens_to_send
from app.gateway.pump import Pump
from plugins.contract import (
    Adapter,
    AdapterError,
    Chunk,
    Completion,
    FailureKind,
    InferenceCall,
    Offer,
    Started,
    UsageReport,
)

OnStarted = Callable[[str], Awaitable[None]]
"""What to do with the provider's own id of an attempt before anything of the answer goes on."""

# What a provider that bills on regardless may still send to a client that left (ledger.md I10).
DRAIN_SECONDS_MAX = 30.0
DRAIN_PIECES_MAX = 4096
# An adapter bounds itself by the order's deadlines; this catches one that does not.
_GRACE_S = 5.0

log = logging.getLogger("turnpike.gateway")

# The caller's own mistake: another provider would refuse it too.
_NO_FAILOVER = frozenset({FailureKind.BAD_REQUEST, FailureKind.CONTEXT_LENGTH})
# Says nothing about the offer's health.
_NOT_ILLNESS = _NO_FAILOVER | {FailureKind.LOADING, FailureKind.NOT_FOUND}


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
    call: Call, offer: Offer, bounds: Bounds, deadlines: Deadlines, stop: asyncio.Event | None
) -> InferenceCall:
    """What the adapter is asked to do. The output limit that the hold pays for is always sent."""
    request = call.request
    held = call.hold.amount_nano_usd
    limit = output_tokens_to_send(request, offer, held, bounds.input_tokens)
    if not isinstance(request.max_completion_tokens, int):
        request = replace(request, max_tokens=limit)
    elif not isinstance(request.max_tokens, int):
        request = replace(request, max_completion_tokens=limit)
    else:  # whichever of the two the provider reads
        request = replace(request, max_completion_tokens=limit, max_tokens=limit)
    return InferenceCall(
        call_id=call.id,
        attempt_id=f"{call.id}-{call.attempts}",
        upstream_id=offer.upstream_id,
        request=request,
        stream=call.streamed,
        compute_ns_max=compute_ns_to_send(offer, held),
        stop=stop,
        # A provider that does not stream says nothing, not even its headers, before it is done.
        first_event_s=deadlines.first_event_s if call.streamed else deadlines.total_s,
        idle_s=deadlines.idle_s,
        deadline_s=deadlines.total_s,
    )


async def attempt(
    adapter: Adapter, order: InferenceCall, pump: Pump, on_started: OnStarted | None = None
) -> bool:
    """Run one attempt into the pump. True: it ended with its usage on the call.

    False: the client had left, and the attempt was abandoned because the provider would have gone
    on for too long. Raises AdapterError only; the generator is closed in every case.
    """
    try:
        return await _run(adapter, order, pump, on_started)
    except AdapterError:
        raise
    except Exception as error:
        log.exception("call %s: a fault of the adapter", pump.call.id)
        kind = FailureKind.PROTOCOL
        raise AdapterError(kind, "the adapter failed", detail=repr(error)) from error


async def _run(
    adapter: Adapter, order: InferenceCall, pump: Pump, on_started: OnStarted | None
) -> bool:
    call = pump.call
    pieces_max = _pieces_max(order)
    events = cast(Any, adapter.infer(order))  # an async generator: the contract's rules say so
    drain = _Drain(call)
    try:
        async with asyncio.timeout(order.deadline_s + _GRACE_S) as limit, aclosing(events):
            async for event in events:
                if isinstance(event, Chunk):
                    if call.first_token_ns is None:
                        call.first_token_ns = pump.now_ns()
                    await pump.put(event.choices)
                    if call.delivered_pieces > pieces_max:
                        raise AdapterError(
                            FailureKind.PROTOCOL, "the provider went on far past the token limit"
                        )
                elif isinstance(event, Completion):
                    pump.put_completion(event.choices)
                elif isinstance(event, UsageReport):
                    call.usage = event.usage
                    return True
                elif isinstance(event, Started) and on_started is not None and event.upstream_id:
                    await on_started(event.upstream_id)
                if call.client_left and call.streamed and drain.is_over(limit):
                    return False
    except TimeoutError as error:
        if drain.began:
            return False
        raise AdapterError(FailureKind.TIMEOUT, "the provider took too long") from error
    raise AdapterError(FailureKind.PROTOCOL, "the provider's answer ended without its usage")


class _Drain:
    """What a provider may still send once the client has left."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._pieces_before = 0
        self.began = False

    def is_over(self, limit: asyncio.Timeout) -> bool:
        """Asked after each event from the leaving on; the first time sets the deadline."""
        if not self.began:
            self.began, self._pieces_before = True, self._call.delivered_pieces
            latest = asyncio.get_running_loop().time() + DRAIN_SECONDS_MAX
            limit.reschedule(min(limit.when() or 0, latest))
            return False
        return self._call.delivered_pieces - self._pieces_before > DRAIN_PIECES_MAX


def _pieces_max(order: InferenceCall) -> int:
    """More pieces than an answer within its limit can have: a piece is at least one token, and
    twice the limit leaves room for providers that cut finer.
    """
    request = order.request
    return 2 * request.answers() * (request.output_tokens_limit() or 0) + 64


def may_fail_over(failure: AdapterError) -> bool:
    """Whether another offer might do better."""
    return failure.kind not in _NO_FAILOVER


def is_illness(failure: AdapterError) -> bool:
    """Whether the failure counts against the offer's circuit."""
    return failure.kind not in _NOT_ILLNESS


def answer_to(failure: AdapterError, model: str) -> CallError:
    """The error the client gets when no attempt is left; never a provider's own words on a 5xx."""
    kind = failure.kind
    retry_after_s = None if failure.retry_after_s is None else max(1, round(failure.retry_after_s))
    if kind is FailureKind.BAD_REQUEST:
        return InvalidRequest(failure.message, param=failure.param)
    if kind is FailureKind.CONTEXT_LENGTH:
        return InvalidRequest(
            failure.message, param=failure.param or "messages", code="context_length_exceeded"
        )
    if kind is FailureKind.RATE_LIMITED:
        return RateLimited(
            f"Every provider of {model!r} is rate limited at the moment. Try again shortly.",
            retry_after_s=retry_after_s or 1,
        )
    if kind in {FailureKind.OVERLOADED, FailureKind.LOADING}:
        loading = kind is FailureKind.LOADING
        return Unavailable(
            failure.message if loading else f"{model!r} is overloaded. Try again shortly.",
            code="model_loading" if loading else "overloaded",
            retry_after_s=retry_after_s or 1,
        )
    if kind is FailureKind.TIMEOUT:
        return UpstreamTimeout(f"{model!r} did not answer in time. Try again.")
    if kind is FailureKind.CRASHED:
        return UpstreamFailed(
            f"The engine that runs {model!r} stopped during this call; it is being restarted. "
            "Try again.",
            code="engine_crashed",
        )
    return UpstreamFailed(f"No provider of {model!r} could answer. Try again.")
