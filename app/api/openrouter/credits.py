"""``GET /api/v1/credits``, as OpenRouter shapes it: what was given in all, and spent of it.

The difference is the credit that is left. Credit that expired is in neither; what a tier bills past
the credit is not credit (``/api/billing`` has it).
"""

from typing import Any

import msgspec
from litestar import Request, get
from msgspec import Raw

from app.api.admin.asking import services_of
from app.api.auth import principal_of
from app.api.openrouter.key import number


class CreditsData(msgspec.Struct, frozen=True):
    """USD, as exact JSON numbers."""

    total_credits: Raw
    total_usage: Raw


class CreditsAnswer(msgspec.Struct, frozen=True):
    """The whole answer."""

    data: CreditsData


@get("/credits")
async def show_credits(request: Request[Any, Any, Any]) -> CreditsAnswer:
    """Of the user whose key asks."""
    services = services_of(request)
    key = await services.spending.of_key(principal_of(request).key_id)
    await services.ledger.balance(key.user_id)  # books what the month lacks
    totals = await services.spending.totals(key.user_id)
    return CreditsAnswer(
        CreditsData(number(totals.credits_nano_usd), number(totals.usage_nano_usd))
    )
