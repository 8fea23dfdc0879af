"""``/api/invoices``: closed months of one's own, of orgs for their admins, of all for owners."""

import re
from typing import Any, get_args

from litestar import Request, Response, get, post
from litestar.params import FromPath

from app.api.admin.asking import query_of, services_of
from app.api.admin.billing_wire import with_usd
from app.api.admin.invoices_wire import (
    Format,
    InvoiceList,
    InvoiceQuery,
    InvoicesQuery,
    PreviewQuery,
)
from app.api.auth import principal_of
from app.api.services import Services
from app.billing.invoice_csv import to_csv
from app.billing.invoice_document import decode
from app.billing.invoice_html import content_security_policy, to_html
from app.billing.invoices import StoredInvoice, unknown_invoice
from app.billing.month_closing import Closed
from app.errors import InvalidRequest, PermissionDenied
from app.identity.principal import Principal

_MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "csv": "text/csv",
    "html": "text/html",
}


@get("/invoices")
async def list_invoices(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """A page of closed invoices, newest first."""
    asked, services = query_of(request, InvoicesQuery), services_of(request)
    payer_id = await _payer_asked(services, principal_of(request), asked)
    found = await services.invoices.list(
        payer_id=payer_id, period=asked.period or "", before=asked.before, limit=asked.limit
    )
    return with_usd(InvoiceList(found, found[-1].sequence if len(found) == asked.limit else None))


@get("/invoices/preview")
async def preview_invoice(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The current month so far, as an invoice that is not final."""
    asked, services = query_of(request, PreviewQuery), services_of(request)
    payer_id = await _payer_asked(services, principal_of(request), asked)
    if payer_id is None:
        raise InvalidRequest("Say whose month: 'payer' names a user or an org.", param="payer")
    document = await services.invoices.preview(payer_id)
    return _answer(document, asked.format or _preferred(request), "preview")


@get("/invoices/{number:str}")
async def show_invoice(request: Request[Any, Any, Any], number: FromPath[str]) -> Response[bytes]:
    """One closed invoice: the stored document as it is, or rendered from it."""
    asked, services = query_of(request, InvoiceQuery), services_of(request)
    stem, suffix = _split(number)
    found = await services.invoices.numbered(stem)
    if not await _may_see(services, principal_of(request), found):
        raise unknown_invoice(stem)
    return _answer(found.document, asked.format or suffix or _preferred(request), stem)


@post("/invoices/close", status_code=200)
async def close_invoices(request: Request[Any, Any, Any]) -> Closed:
    """Make the invoices that are due, now."""
    return await services_of(request).closing.run()


async def _payer_asked(
    services: Services, principal: Principal, asked: InvoicesQuery | PreviewQuery
) -> str | None:
    """Whose invoices: a payer's id, or None for all. Raises PermissionDenied, NotFound."""
    if asked.org is not None and asked.payer is not None:
        raise InvalidRequest("Name 'org' or 'payer', not both.", param="payer")
    if principal.owner:
        name = asked.org or asked.payer
        if name is None:
            return None
        payer = await services.payers.named(name)
        if asked.org is not None and payer.kind != "org":
            raise InvalidRequest(f"{payer.name} is a user: ask with 'payer'.", param="org")
        return payer.id
    if asked.payer is not None:
        raise PermissionDenied(
            "Only an owner of this appliance may name a payer. Leave out 'payer' to see your own;"
            " 'org' names an org that you are an admin of.",
            param="payer",
        )
    if asked.org is None:
        return principal.user_id
    payer, role = await services.payers.org_of(asked.org, principal.user_id)
    if role != "admin":
        raise PermissionDenied(f"Only admins of {payer.name} see its invoices.", param="org")
    return payer.id


async def _may_see(services: Services, principal: Principal, found: StoredInvoice) -> bool:
    if principal.owner or found.payer_id == principal.user_id:
        return True
    return await services.members.role_of(found.payer_id, principal.user_id) == "admin"


def _split(number: str) -> tuple[str, Format | None]:
    """A number that ends like a file's name, and the format that the ending asks for."""
    stem, _, suffix = number.rpartition(".")
    for known in get_args(Format):
        if stem and suffix == known:
            return stem, known
    return number, None


def _preferred(request: Request[Any, Any, Any]) -> Format:
    """The format that the Accept header likes best; JSON where it does not mind."""
    accepted = request.accept.best_match(list(_MEDIA_TYPES.values()), "application/json")
    return next(known for known, media_type in _MEDIA_TYPES.items() if media_type == accepted)


def _answer(document: bytes, asked: Format, name: str) -> Response[bytes]:
    headers = {
        "cache-control": "private, no-cache",
        "vary": "accept, authorization",
        "x-content-type-options": "nosniff",
    }
    body = document
    if asked == "csv":
        body = to_csv(decode(document))
        file_name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        headers["content-disposition"] = f'attachment; filename="invoice-{file_name}.csv"'
    elif asked == "html":
        body = to_html(decode(document))
        headers["content-security-policy"] = content_security_policy()
        headers["referrer-policy"] = "no-referrer"
    # Litestar adds the charset to text.
    return Response(body, media_type=_MEDIA_TYPES[asked], headers=headers)
