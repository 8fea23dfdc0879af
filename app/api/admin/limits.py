"""``/api/limits``: spending limits. Who may see and set which is for ``SpendingLimits`` to say."""

import re
from typing import Any

from litestar import Request, delete, get, put

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.limits_wire import LimitList, LimitPage, LimitQuery, NewLimit
from app.api.auth import principal_of
from app.billing.budgets import SpendingLimit
from app.config import nano_usd
from app.errors import InvalidRequest

_USD = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@get("/limits")
async def list_limits(request: Request[Any, Any, Any]) -> LimitList:
    """A page of the spending limits that the caller may see."""
    page = query_of(request, LimitPage)
    scope, _, subject_id = page.after.partition(":")
    found = await services_of(request).limits.list(
        principal_of(request), after=(scope, subject_id), limit=page.limit
    )
    last = found[-1] if len(found) == page.limit else None
    return LimitList(found, f"{last.scope}:{last.subject_id}" if last else None)


@put("/limits")
async def set_limit(request: Request[Any, Any, Any]) -> SpendingLimit:
    """Set or change a limit, from the next call on."""
    asked = await body_of(request, NewLimit)
    amount_nano_usd = _nano_of(asked.amount_usd)
    return await services_of(request).limits.set(
        asked.scope, asked.subject, amount_nano_usd, principal_of(request)
    )


@delete("/limits", status_code=200)
async def remove_limit(request: Request[Any, Any, Any]) -> SpendingLimit:
    """End a limit; the answer is what it was."""
    asked = query_of(request, LimitQuery)
    return await services_of(request).limits.remove(
        asked.scope, asked.subject, principal_of(request)
    )


def _nano_of(amount_usd: str) -> int:
    if not _USD.fullmatch(amount_usd):
        raise InvalidRequest(
            "'amount_usd' is an amount in USD with at most nine places, such as \"25.00\", or"
            f' "0" (found {amount_usd!a}).',
            param="amount_usd",
        )
    return nano_usd(amount_usd)
