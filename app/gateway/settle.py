"""The end of a call: what it cost, who bears it, and its usage row. ``app/ledger/README.md`` has
the rules as a table.
"""

from app.billing.rating import rate
from app.clock import Clock
from app.gateway.call import Call, CallState
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from app.ledger.entries import Outcome, Settlement, UsageRow
from app.ledger.store import LedgerStore
from plugins.contract import Usage

TOKENS_MAX = 10**12
COMPUTE_NS_MAX = 10**9 * 86_400 * 366
_BYTES_PER_TOKEN = 4  # of English prose, for an estimate where nobody counted
_NOTHING = Usage()


async def settle(
    ledger: LedgerStore, clock: Clock, call: Call, *, failed: bool
) -> tuple[Settlement, UsageRow]:
    """End the call's hold by the rule for how the call ended; durable when this returns.

    An answer that ended well is charged at what the provider reports. One that broke off after
    its first byte, or was abandoned by its client, is charged for what was delivered. Where
    nothing was delivered and nobody reports a cost, nothing is charged.
    """
    delivered = call.delivered_pieces > 0 and call.streamed
    if not failed:
        call.outcome = Outcome.CLIENT_LEFT if call.client_left else Outcome.COMPLETED
    elif call.client_left:
        call.outcome = Outcome.CLIENT_LEFT
    else:
        call.outcome = Outcome.FAILED_PARTIAL if delivered else Outcome.FAILED
    if (failed and delivered and call.usage == _NOTHING) or not _sane(call.usage):
        call.usage = estimated_usage(call)
    row = usage_row(call, clock)
    if failed and not delivered:
        call.move(CallState.VOIDED)
        return await ledger.void_hold(call.id, row), row
    call.move(CallState.SETTLED)
    cost_nano_usd = min(rate(call.usage, call.offer.price), AMOUNT_NANO_USD_MAX)
    return await ledger.settle_hold(call.id, cost_nano_usd, row), row


def estimated_usage(call: Call) -> Usage:
    """What was delivered, where no report came: every piece was at least one token."""
    prompt_bytes = sum(message.text_bytes() for message in call.request.messages)
    return Usage(
        input_tokens=prompt_bytes // _BYTES_PER_TOKEN + 1,
        output_tokens=call.delivered_pieces,
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
        payer_id=call.principal.payer_id,
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
        compute_ns=usage.compute_ns,
        estimated=usage.estimated,
        latency_ms=(clock.monotonic_ns() - call.started_ns) // 1_000_000,
        first_token_ms=None if first is None else (first - call.started_ns) // 1_000_000,
    )
