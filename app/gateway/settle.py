"""The end of a call: what it cost, who bears it, and its usage row. ``app/ledger/README.md`` has
the rules as a table.
"""

from app.billing.rating import rate
from app.clock import Clock
from app.gateway.call import Call, CallState
from app.gateway.pump import Pump
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from app.ledger.entries import Outcome, StoredAnswer, UsageRow
from app.ledger.store import LedgerStore
from plugins.contract import Offer, Usage
from plugins.tasks import CONVERSATIONAL

TOKENS_MAX = 10**12
COMPUTE_NS_MAX = 10**9 * 86_400 * 366
GIVE_UP_AFTER_MS = 30 * 60_000  # a provider that has not said its cost by then gets nothing
_BYTES_PER_TOKEN = 4  # of English prose, for an estimate where nobody counted
_NOTHING = Usage()


async def settle(
    ledger: LedgerStore, clock: Clock, pump: Pump, *, failed: bool, billed_later: bool
) -> tuple[int, UsageRow]:
    """End the call's hold by the rule for how the call ended; durable when this returns.

    An answer that ended well is charged at what the provider reports. One that broke off after
    its first byte, or was abandoned by its client, is charged for what was delivered. Where
    nothing was delivered and nobody reports a cost, nothing is charged. A call whose provider
    says its cost later (``billed_later``) keeps its hold until then. Returns what was charged.
    """
    call = pump.call
    delivered = call.delivered_pieces > 0 and call.streamed
    call.outcome = _outcome(call, failed=failed, delivered=delivered)
    if (failed and delivered and call.usage == _NOTHING) or not _sane(call.usage):
        call.usage = estimated_usage(call)
    row, lost = usage_row(call, clock), min(call.lost_nano_usd, AMOUNT_NANO_USD_MAX)
    if failed and not delivered and not (billed_later and call.client_left):
        if call.state is CallState.STREAMING:  # nothing but the role came, and yet it may cost
            lost = min(lost + lost_to(call, call.usage, call.offer), AMOUNT_NANO_USD_MAX)
        call.move(CallState.VOIDED)
        await ledger.void_hold(call.id, row, lost_nano_usd=lost)
        return 0, row
    answer = _answer(pump, failed=failed)
    call.move(CallState.SETTLED)
    if billed_later and not call.byok:
        give_up_at_ms = clock.now_ms() + GIVE_UP_AFTER_MS
        await ledger.await_cost(
            call.id, row, give_up_at_ms=give_up_at_ms, lost_nano_usd=lost, answer=answer
        )
        return 0, row
    cost = 0 if call.byok else min(rate(call.usage, call.offer.price), AMOUNT_NANO_USD_MAX)
    settlement = await ledger.settle_hold(call.id, cost, row, lost_nano_usd=lost, answer=answer)
    return settlement.cost_nano_usd, row


def lost_to(call: Call, usage: Usage | None, offer: Offer) -> int:
    """What a failed attempt cost, as far as it is known: the house's loss, not the payer's. With
    the caller's own provider key it costs the house nothing."""
    if call.byok or usage is None or not _sane(usage):
        return 0
    return min(rate(usage, offer.price), AMOUNT_NANO_USD_MAX)


def _outcome(call: Call, *, failed: bool, delivered: bool) -> Outcome:
    if call.client_left:
        return Outcome.CLIENT_LEFT
    if failed:
        return Outcome.FAILED_PARTIAL if delivered else Outcome.FAILED
    if call.truncated:
        return Outcome.TRUNCATED
    usage = call.usage
    made = usage.output_tokens + usage.reasoning_tokens + usage.audio_output_tokens + usage.images
    if call.request.task != CONVERSATIONAL:  # a vector has no tokens
        return Outcome.COMPLETED
    return Outcome.COMPLETED if made else Outcome.EMPTY


def _answer(pump: Pump, *, failed: bool) -> StoredAnswer | None:
    """What repeats of a request with an Idempotency-Key are to get."""
    call = pump.call
    if call.repeatable is None:
        return None
    if failed:
        status, body = call.repeatable.broken(call)
        return StoredAnswer(status=status, body=body)
    return StoredAnswer(status=200, body=call.repeatable.whole(call, pump.whole()))


def estimated_usage(call: Call) -> Usage:
    """What was delivered, where no report came: every piece was at least one token.

    A provider that goes on past the limit that it was sent is not paid for it.
    """
    request = call.request
    prompt_bytes = request.text_bytes()
    limit = request.output_tokens_limit()
    pieces = call.delivered_pieces
    return Usage(
        input_tokens=prompt_bytes // _BYTES_PER_TOKEN + 1,
        output_tokens=pieces if limit is None else min(pieces, limit * request.answers()),
        estimated=True,
    )


def _sane(usage: Usage) -> bool:
    """Whether a report can be true: a plugin's numbers must not stop the ledger."""
    counts = (
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.audio_input_tokens,
        usage.audio_output_tokens,
        usage.images,
        usage.characters,
        usage.audio_ms,
        usage.video_ms,
    )
    own_figure = 0 if usage.cost_nano_usd is None else usage.cost_nano_usd
    return (
        min(counts) >= 0
        and max(counts) <= TOKENS_MAX
        and 0 <= usage.compute_ns <= COMPUTE_NS_MAX
        and 0 <= own_figure <= AMOUNT_NANO_USD_MAX
    )


def usage_row(call: Call, clock: Clock) -> UsageRow:
    """The call as measured."""
    usage = call.usage
    first = call.first_token_ns
    return UsageRow(
        call_id=call.id,
        at_ms=call.admitted_at_ms,
        user_id=call.principal.user_id,
        key_id=call.principal.key_id,
        payer_id=call.hold.payer_id,
        group_id=call.hold.group_id,
        model=call.offer.model,
        provider=call.offer.provider,
        outcome=call.outcome,
        streamed=call.streamed,
        attempts=call.attempts,
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        audio_input_tokens=usage.audio_input_tokens,
        audio_output_tokens=usage.audio_output_tokens,
        images=usage.images,
        characters=usage.characters,
        audio_ms=usage.audio_ms,
        video_ms=usage.video_ms,
        byok=call.byok,
        provider_cost_nano_usd=usage.cost_nano_usd,
        compute_ns=usage.compute_ns,
        estimated=usage.estimated,
        latency_ms=(clock.monotonic_ns() - call.started_ns) // 1_000_000,
        first_token_ms=None if first is None else (first - call.started_ns) // 1_000_000,
    )
