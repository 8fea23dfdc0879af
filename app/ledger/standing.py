"""Who pays, and within what: asked by the ledger inside the transaction that places a hold.

The ledger knows neither users nor orgs nor tiers; ``app.billing.standing`` answers for them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from app.ledger.entries import CreditTerms, Standing

Ask = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]
"""Runs one query, with bound parameters, in the transaction of the verb."""


class Standings(Protocol):
    """Plain functions for the writer thread: they ask, and neither wait nor write."""

    def of_caller(self, ask: Ask, user_id: str, key_id: str, bill_to: str | None) -> Standing:
        """Who pays for a call of this key, and on what terms.

        Raises PermissionDenied where the user is not a member of the org that ``bill_to`` names
        (an org that does not exist answers the same), or the payer's tier is not configured;
        InvalidKey where the key was revoked.
        """
        ...

    def of_payer(self, ask: Ask, payer_id: str) -> CreditTerms:
        """The terms of a user or an org. Raises NotFound, PermissionDenied as above."""
        ...
