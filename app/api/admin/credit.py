"""``/api/credit`` and ``/api/adjustments``: credit that an owner gives, and corrections."""

from typing import Any

from litestar import Request, get, post

from app.api.admin.asking import body_of, query_of, services_of
from app.api.admin.billing_wire import (
    AdjustmentList,
    AdjustmentQuery,
    CreditList,
    CreditQuery,
    NewAdjustment,
    NewCredit,
    given,
    with_usd,
)
from app.api.admin.usage import moment_ms
from app.api.auth import principal_of
from app.billing.amounts import nano_of
from app.errors import InvalidRequest
from app.ledger.accounts import GrantKind
from app.ledger.entries import NewGrant


@post("/credit")
async def give_credit(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Give purchased or promotional credit, once per reference."""
    asked, services = await body_of(request, NewCredit), services_of(request)
    amount = nano_of(asked.amount_usd, "amount_usd")
    expires_at_ms = _expiry(asked)
    payer = await services.payers.named(asked.payer)
    new = NewGrant(
        payer_id=payer.id,
        kind=GrantKind(asked.kind),
        reference=asked.reference,
        amount_nano_usd=amount,
        expires_at_ms=expires_at_ms,
        note=asked.note,
    )
    return with_usd(given(await services.credit_book.give(new), payer.name))


@get("/credit")
async def list_credit(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Every grant that a payer got, and what has become of it."""
    asked, services = query_of(request, CreditQuery), services_of(request)
    payer = await services.payers.named(asked.payer)
    found = await services.credit_book.grants(payer, before=asked.before, limit=asked.limit)
    more = found[-1].id if len(found) == asked.limit else None
    return with_usd(CreditList([given(grant, payer.name) for grant in found], more))


@post("/adjustments")
async def adjust(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Book a correction, with its reason; the author is whoever asks."""
    asked, services = await body_of(request, NewAdjustment), services_of(request)
    amount = nano_of(asked.amount_usd, "amount_usd", signed=True)
    payer = await services.payers.named(asked.payer)
    author = principal_of(request).user_name
    booked = await services.credit_book.adjust(payer, amount, asked.reason, author, asked.id)
    return with_usd(booked)


@get("/adjustments")
async def list_adjustments(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Corrections, with reason and author."""
    asked, services = query_of(request, AdjustmentQuery), services_of(request)
    payer = None if asked.payer is None else await services.payers.named(asked.payer)
    found = await services.credit_book.adjustments(payer, before=asked.before, limit=asked.limit)
    return with_usd(AdjustmentList(found, found[-1].id if len(found) == asked.limit else None))


def _expiry(asked: NewCredit) -> int | None:
    """Promotional credit ends at a date, purchased credit never does."""
    if asked.kind == "purchased":
        if asked.expires is not None:
            raise InvalidRequest(
                "Purchased credit does not expire: leave out 'expires', or give promotional"
                " credit.",
                param="expires",
            )
        return None
    if asked.expires is None:
        raise InvalidRequest(
            "Promotional credit needs 'expires': the date from which on it is gone, such as"
            " 2026-12-31.",
            param="expires",
        )
    return moment_ms(asked.expires, "expires")
