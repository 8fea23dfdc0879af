"""What the ledger is told and what it answers, as frozen Structs. Amounts are integer nano-USD."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from app.ledger.accounts import GrantKind


class HoldState(StrEnum):
    """A hold is HELD until exactly one of the others, which never changes again (I3)."""

    HELD = "held"
    SETTLED = "settled"
    VOID = "void"
    GAVE_UP = "gave_up"


class Outcome(StrEnum):
    """How a call ended, as it stands on its usage row. README.md has the rule for each."""

    COMPLETED = "completed"
    TRUNCATED = "truncated"  # ended by a token limit, or by what its hold paid for
    EMPTY = "empty"  # ended well, without any output: its input is charged
    CLIENT_LEFT = "client_left"
    FAILED = "failed"  # no byte was delivered: nothing is charged
    FAILED_PARTIAL = "failed_partial"  # failed after the first byte: what was delivered is charged
    COST_UNKNOWN = "cost_unknown"  # its provider never said what it cost: nothing is charged
    KILLED = "killed"  # the appliance died during the call: nothing is charged


class CreditTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What the payer's tier gives and takes in a month; the ledger books what is missing.

    ``monthly_credit_nano_usd`` is for all seats together. ``overage`` false is a hard stop at the
    credit; ``overage_limit_nano_usd`` bounds what a month may go past it. ``fee_nano_usd`` is the
    tier's price for the month, all seats.
    """

    tier: str
    monthly_credit_nano_usd: int
    overage: bool
    overage_limit_nano_usd: int | None = None
    fee_nano_usd: int = 0


class Limit(msgspec.Struct, frozen=True):
    """A spending limit that a call has to stay within: scope, whose, and the month's most.

    ``set_at_ms`` tells one setting of it from the next.
    """

    scope: str
    subject_id: str
    amount_nano_usd: int
    set_at_ms: int = 0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """On what terms a caller may call at this moment: who pays, and within what.

    ``payer_id`` is a user or an org, ``group_id`` the resource group that is billed, or ''.
    ``providers_off`` and ``models_off`` are what the payer does not pay for, with the reason.
    """

    payer_id: str
    payer_name: str
    terms: CreditTerms
    group_id: str = ""
    limits: tuple[Limit, ...] = ()
    providers_off: Mapping[str, str] = {}
    models_off: Mapping[str, str] = {}


class IdempotencyKey(msgspec.Struct, frozen=True, kw_only=True):
    """A client's own name for a request: the same one is carried out once."""

    key: str
    request_hash: bytes
    """SHA-256 of the route and the body, as they were received."""


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request with an Idempotency-Key was answered, for its repeats."""

    status: int
    body: bytes


class HoldRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Set money aside for one call.

    ``amount_nano_usd`` is the most the call can cost. Where less is left, any amount down to
    ``floor_nano_usd`` is granted instead (equal to the amount: all or nothing). ``bill_to`` names
    an org or a resource group; None: whoever pays by default. ``offers`` are those that may serve
    it, as pairs of provider and model. The month of ``admitted_at_ms`` is the call's, however late
    it settles.
    """

    call_id: str
    user_id: str
    key_id: str
    bill_to: str | None = None
    offers: tuple[tuple[str, str], ...]
    amount_nano_usd: int
    floor_nano_usd: int
    admitted_at_ms: int
    expires_at_ms: int
    byok: bool = False
    idempotency: IdempotencyKey | None = None

    @property
    def model(self) -> str:
        """The model of the offer that is tried first."""
        return self.offers[0][1]


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Money set aside, durably: the row is on disk when the caller sees this.

    ``offers`` are those of the request that the payer pays for.
    """

    call_id: str
    payer_id: str
    group_id: str
    tier: str
    period: str
    amount_nano_usd: int
    offers: tuple[tuple[str, str], ...]


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call as measured: written in the transaction that ends its hold, exactly once.

    The cost is not in here: the ledger writes what it really charged beside it, and from which
    grants. ``provider_cost_nano_usd`` is the provider's own bill, where it sent one.
    """

    call_id: str
    at_ms: int
    user_id: str
    key_id: str
    payer_id: str
    group_id: str = ""
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
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    images: int = 0
    characters: int = 0
    audio_ms: int = 0
    video_ms: int = 0
    compute_ns: int = 0
    estimated: bool = False
    byok: bool = False
    latency_ms: int = 0
    first_token_ms: int | None = None
    provider_cost_nano_usd: int | None = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How a hold ended. A repeat of settle or void answers with the first result (I3).

    ``cost_nano_usd`` is what the payer was charged; ``overrun_nano_usd`` what the call cost beyond
    that, borne by the house because no room was left under a hard stop or a limit (I6).
    """

    call_id: str
    state: HoldState
    cost_nano_usd: int
    overrun_nano_usd: int = 0


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Credit given in advance, and what has become of it. Times are milliseconds; without
    ``expires_at_ms`` it does not expire."""

    id: int
    payer_id: str
    kind: GrantKind
    reference: str
    starts_at_ms: int
    expires_at_ms: int | None
    note: str
    granted_nano_usd: int
    spent_nano_usd: int
    expired_nano_usd: int

    @property
    def left_nano_usd(self) -> int:
        """What can still be spent of it."""
        return self.granted_nano_usd - self.spent_nano_usd - self.expired_nano_usd


class NewGrant(msgspec.Struct, frozen=True, kw_only=True):
    """Credit to give: purchased or promotional. ``reference`` makes it once per payer and kind."""

    payer_id: str
    kind: GrantKind
    reference: str
    amount_nano_usd: int
    expires_at_ms: int | None = None
    note: str = ""


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's correction: positive gives credit, negative takes it. ``id`` makes it once."""

    id: str
    payer_id: str
    amount_nano_usd: int
    reason: str
    author: str


class EndpointMinute(msgspec.Struct, frozen=True, kw_only=True):
    """A minute that one replica of a dedicated endpoint ran (I9). ``minute`` counts from 1970."""

    endpoint_id: str
    replica: int
    minute: int
    amount_nano_usd: int


class ProbeRow(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe of an offer used, all its calls together. It is nobody's usage."""

    at_ms: int
    provider: str
    model: str
    calls: int = 1
    input_tokens: int = 0
    output_tokens: int = 0


class PendingCost(msgspec.Struct, frozen=True, kw_only=True):
    """A call that ended and whose provider has yet to say what it cost."""

    call_id: str
    provider: str
    upstream_id: str
    served_at_ms: int
    give_up_at_ms: int


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """A payer's money at one moment. Grants are those that can be spent now, in burn order.

    ``held_nano_usd`` is what open calls hold, in any month; ``overage_nano_usd`` what this month
    has gone past the credit. ``credit_nano_usd`` is what is left of the grants.
    """

    payer_id: str
    period: str
    grants: tuple[Grant, ...]
    credit_nano_usd: int
    held_nano_usd: int
    overage_nano_usd: int
    terms: CreditTerms

    @property
    def available_nano_usd(self) -> int:
        """What a new hold can take under a hard stop."""
        return max(self.credit_nano_usd - self.held_nano_usd, 0)
