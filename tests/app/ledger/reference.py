"""An independent ledger: no cache, no balances. Every question is answered from what happened."""

from dataclasses import dataclass, field

from app.ledger.entries import CreditTerms, HoldRequest


@dataclass
class Ended:
    """How a call ended: state, charged, borne by the house."""

    state: str
    charged: int
    overrun: int


@dataclass
class Happened:
    """One call that was admitted."""

    request: HoldRequest
    amount: int
    ended: Ended | None = None


@dataclass
class Reference:
    """All calls so far, in order."""

    calls: dict[str, Happened] = field(default_factory=dict)
    forgiven: dict[str, int] = field(default_factory=dict)

    def of(self, payer: str, period: str) -> list[Happened]:
        return [
            call
            for call in self.calls.values()
            if (call.request.payer_id, call.request.period) == (payer, period)
        ]

    def granted(self, payer: str, period: str) -> int:
        credits = [call.request.terms.monthly_credit_nano_usd for call in self.of(payer, period)]
        return max(credits, default=0)

    def posted(self, payer: str, period: str) -> int:
        return sum(call.ended.charged for call in self.of(payer, period) if call.ended)

    def held(self, payer: str, period: str) -> int:
        return sum(call.amount for call in self.of(payer, period) if not call.ended)

    def room(self, payer: str, period: str, terms: CreditTerms) -> int:
        credit = max(self.granted(payer, period), terms.monthly_credit_nano_usd)
        return max(0, credit - self.posted(payer, period) - self.held(payer, period))

    def place(self, request: HoldRequest) -> int | str:
        """The amount that is set aside, or why none is."""
        if request.call_id in self.calls:
            return "conflict"
        amount = request.amount_nano_usd
        if not request.terms.overage:
            room = self.room(request.payer_id, request.period, request.terms)
            if room < request.floor_nano_usd:
                return "insufficient"
            amount = min(amount, room)
        self.calls[request.call_id] = Happened(request, amount)
        return amount

    def settle(self, call_id: str, cost: int) -> Ended | str:
        call = self.calls.get(call_id)
        if call is None:
            return "unknown"
        if call.ended is not None:
            if call.ended.state == "gave_up" and cost:
                self.forgiven.setdefault(call_id, cost)
            return call.ended
        request = call.request
        charged = cost
        if not request.terms.overage:
            month = (request.payer_id, request.period)
            room = max(0, self.granted(*month) - self.posted(*month) - self.held(*month))
            charged = min(cost, call.amount + room)
        call.ended = Ended("settled", charged, cost - charged)
        return call.ended

    def void(self, call_id: str) -> Ended | str:
        call = self.calls.get(call_id)
        if call is None:
            return "unknown"
        call.ended = call.ended or Ended("void", 0, 0)
        return call.ended

    def give_up(self, now_ms: int | None) -> set[str]:
        found = {
            call_id
            for call_id, call in self.calls.items()
            if call.ended is None and (now_ms is None or call.request.expires_at_ms <= now_ms)
        }
        for call_id in found:
            self.calls[call_id].ended = Ended("gave_up", 0, 0)
        return found
