"""What ``/api/billing``, ``/credit``, ``/adjustments`` and ``/events`` take and give.

Imports no web framework. Times are milliseconds since 1970-01-01 UTC. Every amount is answered
twice, as ``…_nano_usd`` (an integer) and as ``…_usd`` (the same as an exact decimal string); these
structs, which the CLI decodes, have the first of the two.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.billing.amounts import decimal_usd
from app.billing.credit_book import PAGE_LENGTH_MAX, Booked
from app.billing.events import EVENTS_MAX, Event
from app.ledger.entries import Grant

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Amount = Annotated[str, Meta(min_length=1, max_length=32)]
Reference = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+( [!-~]+)*\Z")]
Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+\Z")]
Words = Annotated[str, Meta(max_length=500)]
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\S")]
_NANO = "_nano_usd"


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body or a query; what it does not know is refused."""


class BillingQuery(_Asked, frozen=True):
    """``GET /api/billing``: one's own, an org's for who belongs to it, anyone's for owners."""

    org: Name | None = None
    payer: Name | None = None


class NewCredit(_Asked, frozen=True):
    """``POST /api/credit``. The ``reference`` makes it once: a payment's or a campaign's id.

    Promotional credit has ``expires``, a date or time (ISO 8601, UTC unless it names a zone) from
    which on it is gone; purchased credit does not expire.
    """

    payer: Name
    kind: Literal["purchased", "promotional"]
    amount_usd: Amount
    reference: Reference
    expires: Annotated[str, Meta(min_length=10, max_length=40)] | None = None
    note: Words = ""


class CreditQuery(_Asked, frozen=True):
    """``GET /api/credit``: all grants of a payer, newest first."""

    payer: Name
    before: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_LENGTH_MAX)] = PAGE_LENGTH_MAX


class NewAdjustment(_Asked, frozen=True):
    """``POST /api/adjustments``: a positive amount gives credit, a negative one takes it. An ``id``
    makes it once."""

    payer: Name
    amount_usd: Amount
    reason: Reason
    id: Id | None = None


class AdjustmentQuery(_Asked, frozen=True):
    """``GET /api/adjustments``: newest first, of one payer or of all."""

    payer: Name | None = None
    before: Annotated[str, Meta(max_length=64)] = ""
    limit: Annotated[int, Meta(ge=1, le=PAGE_LENGTH_MAX)] = PAGE_LENGTH_MAX


class EventQuery(_Asked, frozen=True):
    """``GET /api/events``: newest first. Admins of an org name it; owners may leave it out."""

    org: Name | None = None
    before: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    limit: Annotated[int, Meta(ge=1, le=EVENTS_MAX)] = EVENTS_MAX


class GivenCredit(msgspec.Struct, frozen=True, kw_only=True):
    """A grant and what has become of it."""

    id: int
    payer: str
    kind: str
    reference: str
    note: str
    starts_at_ms: int
    expires_at_ms: int | None
    granted_nano_usd: int
    spent_nano_usd: int
    expired_nano_usd: int
    left_nano_usd: int


class CreditList(msgspec.Struct, frozen=True):
    """Newest first. ``next_before`` is the ``before`` of the next page, if there may be one."""

    data: list[GivenCredit]
    next_before: int | None = None


class AdjustmentList(msgspec.Struct, frozen=True):
    """Newest first; as above."""

    data: list[Booked]
    next_before: str | None = None


class EventList(msgspec.Struct, frozen=True):
    """Newest first; as above."""

    data: list[Event]
    next_before: int | None = None


def given(grant: Grant, payer: str) -> GivenCredit:
    """A grant of the payer with this name."""
    return GivenCredit(
        id=grant.id,
        payer=payer,
        kind=grant.kind,
        reference=grant.reference,
        note=grant.note,
        starts_at_ms=grant.starts_at_ms,
        expires_at_ms=grant.expires_at_ms,
        granted_nano_usd=grant.granted_nano_usd,
        spent_nano_usd=grant.spent_nano_usd,
        expired_nano_usd=grant.expired_nano_usd,
        left_nano_usd=grant.left_nano_usd,
    )


def with_usd(answer: msgspec.Struct) -> dict[str, Any]:
    """An answer in which every ``…_nano_usd`` is followed by the same as a decimal, ``…_usd``."""
    shown: dict[str, Any] = _shown(msgspec.to_builtins(answer))
    return shown


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(item) for item in value]
    if not isinstance(value, dict):
        return value
    shown: dict[str, Any] = {}
    for name, item in value.items():
        shown[name] = _shown(item)
        if name.endswith(_NANO):
            usd = None if item is None else decimal_usd(item)
            shown[f"{name.removesuffix(_NANO)}_usd"] = usd
    return shown
