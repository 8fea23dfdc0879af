"""One client request on its way from admission to settled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from app.identity.own_keys import OwnKey
from app.identity.principal import Principal
from app.ids import CallId
from app.ledger.entries import Hold, IdempotencyKey, Outcome
from app.routing.key_pools import ProviderKey
from app.routing.plan import RoutePlan
from plugins.chat import Choice
from plugins.contract import Offer, Usage
from plugins.tasks import Output, Request

if TYPE_CHECKING:
    from app.tracing.call_trace import CallTrace


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a call, for those who ask how it went. ``status`` is ok, or the kind of
    failure; ``ms`` is how long it took."""

    provider: str
    model: str
    status: str
    ms: int
    own_key: bool = False


class CallState(StrEnum):
    """admitted → held → dispatched → streaming → settled, or voided from any state before it."""

    ADMITTED = "admitted"
    HELD = "held"
    DISPATCHED = "dispatched"
    STREAMING = "streaming"
    SETTLED = "settled"
    VOIDED = "voided"


_NEXT = {
    CallState.ADMITTED: {CallState.HELD},
    CallState.HELD: {CallState.DISPATCHED, CallState.VOIDED},
    CallState.DISPATCHED: {
        CallState.DISPATCHED,
        CallState.STREAMING,
        CallState.SETTLED,
        CallState.VOIDED,
    },
    CallState.STREAMING: {CallState.SETTLED, CallState.VOIDED},
    CallState.SETTLED: set[CallState](),
    CallState.VOIDED: set[CallState](),
}


Answer = Sequence[Choice] | Output
"""What a call ends with: a chat's choices, or what another task made."""


@dataclass(slots=True, frozen=True)
class Repeatable:
    """A request with an Idempotency-Key, and the bodies that its repeats get: of the whole answer,
    or of the error where it broke off after it had begun to cost something.
    """

    key: IdempotencyKey
    whole: Callable[["Call", Answer], bytes]
    broken: Callable[["Call"], tuple[int, bytes]]


@dataclass(slots=True)
class Call:
    """What is known of a call. ``body_bytes`` is the length of the request as it was received.

    ``bill_to`` is whom the client named as the payer, ``payer_id`` who it is where that had to be
    known beforehand. ``confined_to`` is what the plan must keep to, ``preferred`` the caller's own
    order of providers, ``own_keys`` the provider keys of whoever pays. ``byok``: the offer tried
    last was, with one of these. ``explain``: the client asks how it was served.
    ``wait_for_model``: it waits for a model of this machine that must be loaded first.
    ``delivered_pieces`` counts the non-empty deltas handed on to the client: each is at least one
    token, so it never overstates what was delivered. ``lost_nano_usd`` is what failed attempts
    cost. ``bound``: a provider that says its costs later knows the call under an id of its own.
    ``trace`` is there where traces are switched on.
    """

    id: CallId
    principal: Principal
    request: Request
    body_bytes: int
    admitted_at_ms: int
    started_ns: int
    bill_to: str | None = None
    payer_id: str | None = None
    confined_to: Sequence[frozenset[str]] = ()
    preferred: Sequence[str] = ()
    own_keys: Mapping[str, OwnKey] = field(default_factory=dict)
    explain: bool = False
    wait_for_model: bool = True
    byok: bool = False
    repeatable: Repeatable | None = None
    trace: "CallTrace | None" = None
    state: CallState = CallState.ADMITTED
    hold: Hold = field(init=False)  # from HELD on
    offer: Offer = field(init=False)  # from DISPATCHED on: the one tried last
    key: ProviderKey = field(init=False)  # and with which key
    route: RoutePlan = field(init=False)  # from ADMITTED on, once it is planned
    tries: list[Try] = field(default_factory=list)
    dropped_params: Sequence[str] = ()
    attempts: int = 0
    first_token_ns: int | None = None
    delivered_pieces: int = 0
    usage: Usage = field(default_factory=Usage)
    outcome: Outcome = Outcome.FAILED
    client_left: bool = False
    truncated: bool = False
    bound: bool = False
    lost_nano_usd: int = 0

    @property
    def streamed(self) -> bool:
        """Whether the client asked for a stream."""
        return self.request.stream is True

    def move(self, state: CallState) -> None:
        """Go to ``state``; an illegal move is a fault of ours and stops the call."""
        if state not in _NEXT[self.state]:
            raise AssertionError(f"call {self.id}: {self.state} → {state} is not a legal move")
        self.state = state
