"""``GET /api/v1/key``: the key it is asked with, its use and limit, as OpenRouter shapes it.

Amounts are USD as JSON numbers, written exactly and without an exponent. Shape:
OpenRouterTeam/typescript-sdk, ``getCurrentKey``.
"""

from typing import Any

import msgspec
from litestar import Request, get
from msgspec import Raw

from app.api.admin.asking import services_of
from app.api.auth import principal_of
from app.api.services import Services
from app.billing.amounts import decimal_usd
from app.billing.spent import KeySpending


class RateLimit(msgspec.Struct, frozen=True):
    """Deprecated there, always like this; clients that are older want it."""

    requests: int = -1
    interval: str = "10s"
    note: str = "This field is deprecated and safe to ignore."


class KeyData(msgspec.Struct, frozen=True, kw_only=True):
    """All fields are always there. ``limit`` is the key's spending limit, which is monthly here."""

    label: str
    limit: Raw | None
    limit_reset: str | None
    limit_remaining: Raw | None
    include_byok_in_limit: bool = False
    usage: Raw
    usage_daily: Raw
    usage_weekly: Raw
    usage_monthly: Raw
    byok_usage: Raw
    byok_usage_daily: Raw
    byok_usage_weekly: Raw
    byok_usage_monthly: Raw
    is_free_tier: bool
    is_management_key: bool = False  # every key here may call models
    is_provisioning_key: bool = False
    creator_user_id: str
    expires_at: str | None = None
    rate_limit: RateLimit = RateLimit()


class KeyAnswer(msgspec.Struct, frozen=True):
    """The whole answer."""

    data: KeyData


@get("/key")
async def show_key(request: Request[Any, Any, Any]) -> KeyAnswer:
    """About the key that asks."""
    services = services_of(request)
    key = await services.spending.of_key(principal_of(request).key_id)
    return KeyAnswer(_data(key, is_free_tier=await _is_free_tier(services, key.user_id)))


async def _is_free_tier(services: Services, user_id: str) -> bool:
    """Whether nobody pays for the user: no fee, nothing past the credit, nothing purchased."""
    terms = (await services.ledger.balance(user_id)).terms
    if terms.fee_nano_usd or terms.overage:
        return False
    return not await services.spending.is_paid_for(user_id)


def _data(key: KeySpending, *, is_free_tier: bool) -> KeyData:
    limited = key.limit_nano_usd is not None
    return KeyData(
        label=key.label,
        limit=None if key.limit_nano_usd is None else number(key.limit_nano_usd),
        limit_reset="monthly" if limited else None,
        limit_remaining=None if key.left_nano_usd is None else number(key.left_nano_usd),
        usage=number(key.spent.ever),
        usage_daily=number(key.spent.daily),
        usage_weekly=number(key.spent.weekly),
        usage_monthly=number(key.spent.monthly),
        byok_usage=number(key.byok.ever),
        byok_usage_daily=number(key.byok.daily),
        byok_usage_weekly=number(key.byok.weekly),
        byok_usage_monthly=number(key.byok.monthly),
        is_free_tier=is_free_tier,
        creator_user_id=key.user_id,
    )


def number(nano_usd: int) -> Raw:
    """USD as a JSON number with every digit: no float comes near it on this side."""
    return Raw(decimal_usd(nano_usd).encode())
