"""After a change that alters what a payer's month gives or costs: book it at once."""

from app.api.services import Services
from app.errors import PermissionDenied


async def book_terms(services: Services, payer_id: str) -> None:
    """Let the ledger book the difference now, rather than with the payer's next call.

    A payer whose tier is not configured any more has no terms to book until it is again.
    """
    try:
        await services.ledger.catch_up([payer_id])
    except PermissionDenied as error:
        if error.code != "tier_not_configured":
            raise
