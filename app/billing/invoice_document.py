"""What an invoice holds: the document that is stored when a month is closed, and never changes.

Amounts are integer nano-USD, times milliseconds since 1970-01-01 UTC. README.md beside this file
explains the arithmetic with a worked example.
"""

from typing import Literal

import msgspec


class Seller(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends the invoice, as configured when it was closed."""

    name: str
    address: tuple[str, ...]
    note: str


class InvoicePayer(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays, as named when the month was closed. ``seats`` is 1 for a user."""

    id: str
    name: str
    kind: Literal["user", "org"]
    tier: str
    seats: int


class UsageLine(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one model at one provider, and what they cost.

    The buckets are disjoint; those with a default are missing in documents that are older than
    they. ``byok_calls`` are those of ``calls`` that cost nothing because they went out with the
    caller's own key of the provider. ``provider`` is '' where none was reached.
    """

    provider: str
    model: str
    calls: int
    byok_calls: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    audio_input_tokens: int
    audio_output_tokens: int
    images: int
    characters: int = 0
    audio_ms: int = 0
    video_ms: int = 0
    compute_ns: int
    cost_nano_usd: int


class FeeLine(msgspec.Struct, frozen=True, kw_only=True):
    """The tier's price: quantity × unit price, or one piece of the whole where that does not
    divide (a tier or price that changed within the month)."""

    tier: str
    quantity: int
    unit_nano_usd: int
    amount_nano_usd: int


class EndpointLine(msgspec.Struct, frozen=True, kw_only=True):
    """The minutes that the replicas of one dedicated endpoint ran."""

    endpoint_id: str
    minutes: int
    amount_nano_usd: int


class AdjustmentLine(msgspec.Struct, frozen=True, kw_only=True):
    """A correction that was booked in the month: positive gave credit, negative took money."""

    id: str
    at_ms: int
    reason: str
    amount_nano_usd: int


class CreditLine(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one grant within the month.

    ``given`` came in (less what was taken back when seats or tier went down), ``used`` paid calls
    and endpoints, ``adjusted`` was taken by corrections, ``expired`` ended with the month, ``left``
    goes on into the next.
    """

    grant_id: int
    kind: str
    reference: str
    note: str
    expires_at_ms: int | None
    given_nano_usd: int
    used_nano_usd: int
    adjusted_nano_usd: int
    expired_nano_usd: int
    left_nano_usd: int


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The sums. The total due is, in both ways, to the nano:

    usage + endpoints + fees + adjustments_due - credit_used (from the lines), and
    overage_due + endpoints_due + fees_due (from the journal).

    ``adjustments_due`` is what corrections took past the credit; it is part of ``overage_due``.
    """

    usage_nano_usd: int
    endpoints_nano_usd: int
    fees_nano_usd: int
    adjustments_due_nano_usd: int
    credit_used_nano_usd: int
    overage_due_nano_usd: int
    endpoints_due_nano_usd: int
    fees_due_nano_usd: int
    total_due_nano_usd: int


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """A payer's month. ``final`` is false for a preview: without number, still changing.

    ``number`` is what people see (prefix and sequence), ``sequence`` counts without gaps over all
    payers. ``due_on`` is a UTC date.
    """

    number: str | None
    sequence: int | None
    final: bool
    period: str
    closed_at_ms: int | None
    due_on: str | None
    seller: Seller
    payer: InvoicePayer
    usage: tuple[UsageLine, ...]
    fees: tuple[FeeLine, ...]
    endpoints: tuple[EndpointLine, ...]
    adjustments: tuple[AdjustmentLine, ...]
    credit: tuple[CreditLine, ...]
    totals: Totals


_decoder = msgspec.json.Decoder(Invoice)


def decode(document: bytes) -> Invoice:
    """A stored document as a Struct."""
    return _decoder.decode(document)
