"""The ledger's contract: few verbs, each one whole transaction, durable when it returns.

Rules that every store keeps and ``tests/app/ledger/test_store_conformance.py`` checks:

- A verb that returned is on disk (``synchronous=FULL``). A verb that raised changed nothing, but
  for ``LedgerUnavailable``, after which the state is unknown until the process starts again.
- Cancelling the awaiting task changes nothing: the verb runs to its end (I20).
- ``place_hold`` never lets posted + held exceed what was granted under a hard stop (I5, I6).
- Each hold ends once; later verbs on it return the first result (I3).
"""

from typing import Protocol

from app.errors import OutOfCredits
from app.ledger.entries import Balance, CreditTerms, Hold, HoldRequest, Settlement, UsageRow
from app.storage.database import LedgerUnavailable

__all__ = ["InsufficientCredit", "LedgerStore", "LedgerUnavailable"]


class InsufficientCredit(OutOfCredits):
    """The payer's room is smaller than the hold's floor.

    ``held_nano_usd`` is what other calls in flight hold: if the call would fit without them
    (``fits_when_released``), waiting for them to end may help.
    """

    def __init__(self, message: str, *, held_nano_usd: int, fits_when_released: bool) -> None:
        super().__init__(message)
        self.held_nano_usd = held_nano_usd
        self.fits_when_released = fits_when_released


class LedgerStore(Protocol):
    """Money, as the gateway and the jobs use it."""

    async def place_hold(self, request: HoldRequest) -> Hold:
        """Make the month's grant if it is missing, then set money aside.

        Raises InsufficientCredit; Conflict when the call id was used before.
        """
        ...

    async def settle_hold(self, call_id: str, cost_nano_usd: int, usage: UsageRow) -> Settlement:
        """Charge the real cost, free the rest, write the usage row.

        A cost above the hold takes room that is left, and under a hard stop no more than that.
        """
        ...

    async def void_hold(self, call_id: str, usage: UsageRow) -> Settlement:
        """Free all of it, charge nothing, write the usage row."""
        ...

    async def give_up_expired(self, now_ms: int) -> list[Settlement]:
        """End the holds past their expiry at no charge, with a usage row that says killed."""
        ...

    async def recover(self) -> list[Settlement]:
        """At boot, before any call: end the holds that a dead process left, at no charge."""
        ...

    async def balance(self, payer_id: str, period: str, terms: CreditTerms) -> Balance:
        """The payer's month as it stands, counting a grant that is not made yet."""
        ...

    async def wait_for_release(self, payer_id: str, timeout_s: float) -> bool:
        """True as soon as a hold of this payer ended; false when the time is over."""
        ...

    def open_holds(self) -> int:
        """How many holds have not ended, for metrics and the drain."""
        ...
