"""What the ledger is told and what it answers, as frozen Structs. Amounts are integer nano-USD."""

from enum import StrEnum

import msgspec


class HoldState(StrEnum):
    """A hold is HELD until exactly one of the others, which never changes again (I3)."""

    HELD = "held"
    SETTLED = "settled"
    VOID = "void"
    GAVE_UP = "gave_up"


class Outcome(StrEnum):
    """How a call ended, as it stands on its usage row."""

    COMPLETED = "completed"
    CLIENT_LEFT = "client_left"
    FAILED = "failed"  # no byte was delivered: nothing is charged
    FAILED_PARTIAL = "failed_partial"  # failed after the first byte: what was delivered is charged
    KILLED = "killed"  # the appliance died during the call: nothing is charged


class CreditTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the payer's tier gives in the hold's month; the ledger makes the grant if it lacks.

    ``overage`` false is a hard stop at the credit.
    """

    tier: str
    monthly_credit_nano_usd: int
    overage: bool


class HoldRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Set money aside for one call.

    ``amount_nano_usd`` is the most the call can cost. Where less is left, any amount down to
    ``floor_nano_usd`` is granted instead (equal to the amount: all or nothing). ``period`` is the
    UTC month of admission, ``YYYY-MM``, and decides which grant pays, however late it settles.
    """

    call_id: str
    payer_id: str
    user_id: str
    key_id: str
    model: str
    amount_nano_usd: int
    floor_nano_usd: int
    period: str
    terms: CreditTerms
    admitted_at_ms: int
    expires_at_ms: int


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money set aside, durably: the row is on disk when the caller sees this."""

    call_id: str
    payer_id: str
    period: str
    amount_nano_usd: int


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call as measured: written in the transaction that ends its hold, exactly once.

    The cost is not in here: the ledger writes what it really charged beside it.
    """

    call_id: str
    at_ms: int
    user_id: str
    key_id: str
    payer_id: str
    model: str
    provider: str
    outcome: Outcome
    streamed: bool
    attempts: int
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    compute_ns: int = 0
    estimated: bool = False
    latency_ms: int = 0
    first_token_ms: int | None = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How a hold ended. A repeat of settle or void answers with the first result (I3).

    ``cost_nano_usd`` is what the payer was charged; ``overrun_nano_usd`` what the call cost beyond
    that, borne by the house because no room was left under a hard stop (I6).
    """

    call_id: str
    state: HoldState
    cost_nano_usd: int
    overrun_nano_usd: int = 0


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """A payer's money in one UTC month."""

    payer_id: str
    period: str
    granted_nano_usd: int
    posted_nano_usd: int
    held_nano_usd: int
    overage: bool

    @property
    def available_nano_usd(self) -> int:
        """What a new hold can take under a hard stop."""
        return self.granted_nano_usd - self.posted_nano_usd - self.held_nano_usd
