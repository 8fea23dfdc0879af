"""What the verbs refuse before they change anything. All raise ValueError.

A row that SQLite cannot take would fail the whole group, and a failed group stops the ledger; so
nothing gets that far that is not text, or an integer of 64 bits.
"""

import struct

from app.clock import period_of
from app.ledger.accounts import AMOUNT_NANO_USD_MAX
from app.ledger.entries import HoldRequest, UsageRow

INT64_MAX = 2**63 - 1
_PACKERS = [struct.Struct(f"{length}q").pack for length in range(32)]
MOMENT_MS_MAX = 253_402_300_799_999


def check_request(request: HoldRequest) -> None:
    """Whether a hold can be written at all, credit aside."""
    amount, floor = request.amount_nano_usd, request.floor_nano_usd
    if not 0 <= floor <= amount <= AMOUNT_NANO_USD_MAX:
        raise ValueError(f"a hold of {floor} to {amount} nano-USD is out of range")
    if type(amount + floor) is not int:
        raise ValueError("an amount is not an integer")
    # Lone surrogates are str, but not Unicode.
    (request.call_id + request.user_id + request.key_id + request.model).encode()
    _check_integers(request.admitted_at_ms, request.expires_at_ms)
    if request.admitted_at_ms > MOMENT_MS_MAX:
        raise ValueError("the call was admitted after the year 9999")


def check_cost(cost_nano_usd: int) -> None:
    """Whether a cost is one that the ledger can book."""
    if not 0 <= cost_nano_usd <= AMOUNT_NANO_USD_MAX or type(cost_nano_usd) is not int:
        raise ValueError(f"a cost of {cost_nano_usd} nano-USD is out of range")


def check_usage(call_id: str, usage: UsageRow) -> None:
    """Whether a usage row can be written, and is the call's own."""
    if usage.call_id != call_id:
        raise ValueError(f"the usage row is of another call: {usage.call_id}")
    (usage.user_id + usage.key_id + usage.payer_id + usage.group_id + usage.model).encode()
    usage.provider.encode()
    # A provider's report may hold anything.
    _check_integers(
        usage.at_ms,
        usage.attempts,
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
        usage.compute_ns,
        usage.latency_ms,
        usage.first_token_ms or 0,
        usage.provider_cost_nano_usd or 0,
    )


def check_month(period: str, usage: UsageRow) -> None:
    """Whether the usage row is of the hold's month: its sums and the journal's belong together."""
    if period_of(usage.at_ms) != period:
        raise ValueError(f"the usage row is not of the hold's month, {period}")


def _check_integers(*numbers: int) -> None:
    try:
        _PACKERS[len(numbers)](*numbers)  # takes integers of 64 bits and nothing else
    except struct.error:
        pass
    else:
        if min(numbers) >= 0:
            return
    raise ValueError("a number is negative, not whole, or does not fit 64 bits")
