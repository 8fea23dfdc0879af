"""What a call's trace is told, where it has one: which is none unless traces are switched on.

Nothing of what was asked or answered: the same as the log's line says, by OpenTelemetry's names.
"""

from contextlib import AbstractContextManager, nullcontext

from app.errors import CallError
from app.gateway.call import Call
from app.ledger.entries import Outcome, UsageRow
from app.ledger.idempotency import Answered
from app.tracing import attributes as of
from plugins.contract import AdapterError, Offer, Usage
from plugins.tasks import CONVERSATIONAL, FEATURE_EXTRACTION

HEDGED = "hedged"
_UNTRACED = nullcontext()
_LOCAL = "local"
# The conventions' names where they have one.
_OPERATIONS = {CONVERSATIONAL: "chat", FEATURE_EXTRACTION: "embeddings"}


def step(call: Call, name: str) -> AbstractContextManager[None]:
    """A span for a part of the work."""
    return _UNTRACED if call.trace is None else call.trace.step(name)


def begin_attempt(call: Call, offer: Offer, *, own_key: bool) -> None:
    """One at the offer begins; it may have begun already, as the second of two."""
    if call.trace is None or not call.trace.recorded:
        return
    operation = _operation(call)
    call.trace.begin_attempt(
        (offer.provider, offer.model),
        f"{operation} {offer.upstream_id}",
        {
            of.OPERATION: operation,
            of.PROVIDER: offer.provider,
            of.MODEL: offer.upstream_id,
            of.STREAM: call.streamed,
            of.OWN_KEY: own_key,
        },
    )


def accepted(call: Call) -> None:
    """The provider tried last took the work."""
    if call.trace is not None:
        call.trace.accepted((call.offer.provider, call.offer.model))


def end_attempt(call: Call, offer: Offer, failure: AdapterError | str = "") -> None:
    """The one at the offer is over: it delivered, or failed. Where the client has left, what it
    would still have delivered was for nobody."""
    trace = call.trace
    if trace is None or not trace.recorded:
        return
    said: dict[str, object] = {of.ATTEMPT: call.attempts}
    kind = failure if isinstance(failure, str) else str(failure.kind)
    if isinstance(failure, AdapterError):
        said[of.HTTP_STATUS] = failure.status
    elif not failure:
        said |= _tokens(call.usage)
        kind = str(Outcome.CLIENT_LEFT) if call.client_left else ""
    trace.end_attempt(
        (offer.provider, offer.model),
        kind,
        said,
        first_token_ns=call.first_token_ns,
        queued=offer.provider == _LOCAL,
    )


def end_call(call: Call, failure: CallError | None, row: UsageRow | None, cost: int) -> None:
    """Nothing more happens to the call; ``row`` is None where it had found no money to hold."""
    trace = call.trace
    if trace is None or not trace.recorded:
        return
    # An answer that was there before is no failure: its client gets it.
    failed = failure is not None and not isinstance(failure, Answered)
    error = (failure.code or failure.type) if failure is not None and failed else ""
    said: dict[str, object] = {
        of.OPERATION: _operation(call),
        of.MODEL: call.route.offers[0].model,
        of.STREAM: call.streamed,
        of.COST_NANO_USD: cost,
        of.ATTEMPTS: call.attempts,
    }
    if row is not None:
        if row.outcome is Outcome.CLIENT_LEFT:
            error = str(row.outcome)
        said |= _tokens(call.usage)
        said[of.PAYER_ID] = row.payer_id
        said[of.MODEL], said[of.PROVIDER] = row.model, row.provider
        said[of.OUTCOME] = row.outcome.value
        said[of.OWN_KEY] = row.byok
        if row.first_token_ms is not None:
            said[of.FIRST_CHUNK_S] = row.first_token_ms / 1000
    trace.end_task(error, said)


def _operation(call: Call) -> str:
    return _OPERATIONS.get(call.request.task, call.request.task)


def _tokens(usage: Usage) -> dict[str, object]:
    """By the conventions, which count in the whole what is told apart as well."""
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    thought = usage.reasoning_tokens
    said: dict[str, object] = {
        of.INPUT_TOKENS: usage.input_tokens + usage.audio_input_tokens + read + written,
        of.OUTPUT_TOKENS: usage.output_tokens + usage.audio_output_tokens + thought,
    }
    apart = ((of.CACHE_READ_TOKENS, read), (of.CACHE_WRITE_TOKENS, written))
    for name, count in (*apart, (of.REASONING_TOKENS, thought), (of.COMPUTE_NS, usage.compute_ns)):
        if count:
            said[name] = count
    return said
