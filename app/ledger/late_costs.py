"""Costs that come after the call: the hold stays as a placeholder until the provider says (I14),
and is given up where it never does (I15). Verbs on the ledger's image.
"""

import msgspec
from msgspec.structs import replace

from app.errors import Conflict, NotFound
from app.ledger.checks import check_cost, check_usage
from app.ledger.entries import HoldState, Outcome, Settlement, StoredAnswer, UsageRow
from app.ledger.idempotency import BROKE_OFF
from app.ledger.image import LedgerImage
from app.ledger.open_holds import OpenHold, killed

GIVE_UP_AFTER_MS = 30 * 60_000


class _Served(msgspec.Struct, frozen=True):
    """What is known of a call whose cost is not, as it lies in ``pending_costs.usage``."""

    usage: UsageRow
    lost_nano_usd: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Served).decode


class LateCosts:
    """Implements the verbs of that name of ``LedgerStore``."""

    def __init__(self, image: LedgerImage) -> None:
        self._image = image

    def bind(self, call_id: str, provider: str, upstream_id: str, at_ms: int) -> None:
        """See ``LedgerStore.bind_request``."""
        (call_id + provider + upstream_id).encode()
        ask = self._image.ask
        key = (provider, upstream_id)
        rows = ask(
            "SELECT call_id FROM provider_requests WHERE provider = ? AND upstream_id = ?", key
        )
        if rows and rows[0][0] != call_id:
            raise Conflict(f"The provider {provider} gave the id {upstream_id!r} before.")
        if not rows:
            ask("INSERT INTO provider_requests VALUES (?, ?, ?, ?)", (*key, call_id, at_ms))

    def release(self, call_id: str) -> None:
        """See ``LedgerStore.release_request``."""
        self._image.ask("UPDATE provider_requests SET call_id = '' WHERE call_id = ?", (call_id,))

    def wait(
        self,
        call_id: str,
        usage: UsageRow,
        now_ms: int,
        give_up_at_ms: int,
        lost_nano_usd: int,
        answer: StoredAnswer | None,
    ) -> None:
        """See ``LedgerStore.await_cost``."""
        check_usage(call_id, usage)
        check_cost(lost_nano_usd)
        hold = self._image.open_holds.get(call_id)
        if hold is None:
            self._image.endings.first(call_id)
            return
        bound = self._bound(call_id)
        if bound is None:
            raise NotFound(f"No provider knows the call {call_id} under an id of its own.")
        if hold.pending:
            return
        self._pend(hold, bound, now_ms, give_up_at_ms, _Served(usage, lost_nano_usd))
        if hold.idempotency is not None and answer is not None:
            self._image.idempotency.answer(hold.idempotency, answer)
            hold.idempotency = None

    def resolve(self, call_id: str, cost_nano_usd: int) -> Settlement:
        """See ``LedgerStore.resolve_cost``."""
        check_cost(cost_nano_usd)
        hold = self._image.open_holds.get(call_id)
        if hold is None:
            first = self._image.endings.first(call_id)
            if first.state is HoldState.GAVE_UP and cost_nano_usd:
                self._image.endings.forgive(call_id, cost_nano_usd)
            return first
        if not hold.pending:
            raise Conflict(f"The call {call_id} has not ended.")
        served = self._served(call_id)
        usage = replace(served.usage, provider_cost_nano_usd=cost_nano_usd)
        return self._image.settle(call_id, cost_nano_usd, usage, served.lost_nano_usd)

    def give_up_expired(self, now_ms: int) -> list[Settlement]:
        """See ``LedgerStore.give_up_expired``."""
        image = self._image
        image.flush()  # the holds' rows are read
        settlements = []
        for hold in list(image.open_holds.values()):
            if hold.expires_at_ms > now_ms:
                continue
            if hold.pending:
                served = self._served(hold.call_id)
                usage = replace(served.usage, outcome=Outcome.COST_UNKNOWN)
                settlements.append(image.give_up(hold, usage, served.lost_nano_usd))
            else:
                settlements.append(image.give_up(hold, killed(image.connection, hold.call_id)))
        return settlements

    def recover(self, now_ms: int) -> list[Settlement]:
        """See ``LedgerStore.recover``."""
        image = self._image
        image.flush()  # as above
        settlements = []
        for hold in list(image.open_holds.values()):
            if hold.pending:
                continue
            usage, bound = killed(image.connection, hold.call_id), self._bound(hold.call_id)
            if bound is None:
                settlements.append(image.give_up(hold, usage))
                continue
            usage = replace(usage, provider=bound[0])
            self._pend(hold, bound, now_ms, now_ms + GIVE_UP_AFTER_MS, _Served(usage, 0))
            if hold.idempotency is not None:
                # The provider may yet charge for it, so a repeat must not be a second call.
                image.idempotency.answer(hold.idempotency, BROKE_OFF)
                hold.idempotency = None
        return settlements

    def _pend(
        self,
        hold: OpenHold,
        bound: tuple[str, str],
        served_at_ms: int,
        give_up_at_ms: int,
        served: _Served,
    ) -> None:
        hold.pending, hold.expires_at_ms = True, give_up_at_ms
        self._image.ask(
            "INSERT INTO pending_costs (call_id, provider, upstream_id, served_at_ms,"
            " give_up_at_ms, usage) VALUES (?, ?, ?, ?, ?, ?)",
            (hold.call_id, *bound, served_at_ms, give_up_at_ms, _encode(served)),
        )

    def _served(self, call_id: str) -> _Served:
        rows = self._image.ask("SELECT usage FROM pending_costs WHERE call_id = ?", (call_id,))
        return _decode(rows[0][0])  # type: ignore[arg-type]  # a BLOB

    def _bound(self, call_id: str) -> tuple[str, str] | None:
        """The provider and its id of the attempt that was sent last."""
        rows = self._image.ask(
            "SELECT provider, upstream_id FROM provider_requests WHERE call_id = ?"
            " ORDER BY at_ms DESC, upstream_id DESC LIMIT 1",
            (call_id,),
        )
        return (str(rows[0][0]), str(rows[0][1])) if rows else None
