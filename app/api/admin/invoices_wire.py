"""What ``/api/invoices`` takes and gives, for its handlers and for its client, the CLI.

Imports no web framework. The documents themselves are in ``app.billing.invoice_document``.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from app.billing.invoices import PAGE_LENGTH_MAX, InvoiceSummary

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Format = Literal["json", "csv", "html"]


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query; what it does not know is refused."""


class InvoicesQuery(_Asked, frozen=True):
    """``GET /api/invoices``: one's own, an org's for its admins, everyone's for owners.

    Owners may name any user or org as ``payer``.
    """

    org: Name | None = None
    payer: Name | None = None
    period: Annotated[str, Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])\Z")] | None = None
    before: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_LENGTH_MAX)] = PAGE_LENGTH_MAX


class PreviewQuery(_Asked, frozen=True):
    """``GET /api/invoices/preview``: of one's own month, an org's, or anyone's for owners.

    Without ``format``: what the Accept header prefers, else JSON.
    """

    org: Name | None = None
    payer: Name | None = None
    format: Format | None = None


class InvoiceQuery(_Asked, frozen=True):
    """``GET /api/invoices/{number}``; the number may end with .json, .csv or .html instead."""

    format: Format | None = None


class InvoiceList(msgspec.Struct, frozen=True):
    """Newest first. ``next_before`` is the ``before`` of the next page, if there may be one."""

    data: list[InvoiceSummary]
    next_before: int | None = None
