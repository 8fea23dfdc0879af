"""One client request on its way from admission to settled."""

from dataclasses import dataclass, field
from enum import StrEnum

from app.identity.principal import Principal
from app.ids import CallId
from app.ledger.entries import Hold, Outcome
from plugins.chat import ChatRequest
from plugins.contract import Offer, Usage


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


@dataclass(slots=True)
class Call:
    """What is known of a call. ``body_bytes`` is the length of the request as it was received.

    ``delivered_pieces`` counts the non-empty deltas handed on to the client: each is at least one
    token, so it never overstates what was delivered.
    """

    id: CallId
    principal: Principal
    request: ChatRequest
    body_bytes: int
    admitted_at_ms: int
    started_ns: int
    state: CallState = CallState.ADMITTED
    hold: Hold = field(init=False)  # from HELD on
    offer: Offer = field(init=False)  # from DISPATCHED on: the one tried last
    attempts: int = 0
    first_token_ns: int | None = None
    delivered_pieces: int = 0
    usage: Usage = field(default_factory=Usage)
    outcome: Outcome = Outcome.FAILED
    client_left: bool = False

    @property
    def streamed(self) -> bool:
        """Whether the client asked for a stream."""
        return self.request.stream is True

    def move(self, state: CallState) -> None:
        """Go to ``state``; an illegal move is a fault of ours and stops the call."""
        if state not in _NEXT[self.state]:
            raise AssertionError(f"call {self.id}: {self.state} → {state} is not a legal move")
        self.state = state
