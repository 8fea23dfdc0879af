"""The ledger's contract: few verbs, each one whole transaction, durable when it returns.

Rules that every store keeps and ``tests/app/ledger/test_store_conformance.py`` checks:

- A verb that returned is on disk (``synchronous=FULL``). A verb that raised changed nothing, but
  for ``LedgerUnavailable``, after which the state is unknown until the process starts again.
- Cancelling the awaiting task changes nothing: the verb runs to its end (I20).
- ``place_hold`` never lets a payer under a hard stop hold more than there is credit, nor any scope
  with a spending limit spend and hold more than that (I5, I6).
- Each hold ends once; later verbs on it return the first result (I3).
- Verbs that give or take money are made once by their reference; repeating one changes nothing.
"""

from collections.abc import Sequence
from typing import Protocol

from app.errors import OutOfCredits
from app.ledger.entries import (
    Adjustment,
    Balance,
    EndpointMinute,
    Grant,
    Hold,
    HoldRequest,
    NewGrant,
    PendingCost,
    ProbeRow,
    Settlement,
    StoredAnswer,
    UsageRow,
)
from app.storage.database import LedgerUnavailable

__all__ = ["InsufficientCredit", "LedgerStore", "LedgerUnavailable"]


class InsufficientCredit(OutOfCredits):
    """The payer's room, or that of a spending limit, is smaller than the hold's floor.

    ``held_nano_usd`` is what other calls in flight hold: if the call would fit without them
    (``fits_when_released``), waiting for them to end may help.
    """

    def __init__(
        self, message: str, *, payer_id: str, held_nano_usd: int, fits_when_released: bool
    ) -> None:
        super().__init__(message)
        self.payer_id = payer_id
        self.held_nano_usd = held_nano_usd
        self.fits_when_released = fits_when_released


class LedgerStore(Protocol):
    """Money, as the gateway and the jobs use it."""

    # A call's life.

    async def place_hold(self, request: HoldRequest) -> Hold:
        """Find out who pays, book what the month lacks, then set money aside.

        Raises InsufficientCredit; PermissionDenied (see ``Standings``, and where the payer has
        switched the model or all its providers off); Conflict when the call id was used before,
        or another call works on the same Idempotency-Key; Unprocessable when that key came with
        another request.
        """
        ...

    async def settle_hold(
        self,
        call_id: str,
        cost_nano_usd: int,
        usage: UsageRow,
        *,
        lost_nano_usd: int = 0,
        answer: StoredAnswer | None = None,
    ) -> Settlement:
        """Charge the real cost, free the rest, write the usage row.

        A cost above the hold takes room that is left, and under a hard stop or limit no more than
        that. ``lost`` is what failed attempts cost: the house bears it. ``answer`` is kept for
        repeats of the call's Idempotency-Key; without one the key is free again.
        """
        ...

    async def void_hold(
        self, call_id: str, usage: UsageRow, *, lost_nano_usd: int = 0
    ) -> Settlement:
        """Free all of it, charge nothing, write the usage row; its Idempotency-Key is free."""
        ...

    async def give_up_expired(self, now_ms: int) -> list[Settlement]:
        """End the holds past their expiry, and pending costs past theirs, at no charge."""
        ...

    async def recover(self) -> list[Settlement]:
        """At boot, before any call: end the holds that a dead process left, at no charge.

        Those whose cost is pending stay. Those that are bound to a provider's own id become
        pending: the provider is asked.
        """
        ...

    # Costs that come later (I14, I15).

    async def bind_request(self, call_id: str, provider: str, upstream_id: str) -> None:
        """Remember under which id a provider knows the call. Raises Conflict for an id in use."""
        ...

    async def release_request(self, call_id: str) -> None:
        """The attempt that was bound has failed: the payer does not pay for it (I12)."""
        ...

    async def await_cost(
        self,
        call_id: str,
        usage: UsageRow,
        *,
        give_up_at_ms: int,
        lost_nano_usd: int = 0,
        answer: StoredAnswer | None = None,
    ) -> None:
        """The call ended, its cost is not known: keep the hold as a placeholder until it comes.

        Raises NotFound where the call has no bound id. Does nothing for a hold that has ended.
        """
        ...

    async def pending_costs(self, provider: str, limit: int) -> list[PendingCost]:
        """The oldest calls that wait for this provider's figure."""
        ...

    async def resolve_cost(self, call_id: str, cost_nano_usd: int) -> Settlement:
        """The figure came: settle with it. After a give-up the cost is forgiven."""
        ...

    # Credit.

    async def balance(self, payer_id: str) -> Balance:
        """The payer's money now, after booking what the month lacks. Raises NotFound."""
        ...

    async def give(self, grant: NewGrant) -> Grant:
        """Give credit; the grant as it stands. Raises NotFound, Conflict (another amount)."""
        ...

    async def adjust(self, adjustment: Adjustment) -> None:
        """Book a correction. Raises InsufficientCredit where a debit finds too little to take."""
        ...

    async def bill_minutes(self, payer_id: str, minutes: Sequence[EndpointMinute]) -> int:
        """Bill the minutes that were not billed yet; how much that came to."""
        ...

    async def book_probe(self, probe_id: str, row: ProbeRow, cost_nano_usd: int) -> None:
        """Book what trying an offer cost to the house, once per id; nothing where it is nothing.

        Raises Conflict where the id was booked with another amount.
        """
        ...

    async def catch_up(self, payer_ids: Sequence[str]) -> None:
        """Book what these payers' month lacks: grants, fees, expiries. Idempotent.

        A payer without terms (whose tier is not configured any more) waits until there are some.
        """
        ...

    async def payers_to_catch_up(self, limit: int) -> list[str]:
        """Payers whose month lacks something: no monthly grant yet, or a grant to expire."""
        ...

    async def wait_for_release(self, payer_id: str, timeout_s: float) -> bool:
        """True as soon as a hold of this payer ended; false when the time is over."""
        ...

    def open_holds(self) -> int:
        """How many holds have not ended, for metrics and the drain."""
        ...

    def oldest_hold_ms(self) -> int | None:
        """When the call of the oldest open hold was admitted; None without any."""
        ...
