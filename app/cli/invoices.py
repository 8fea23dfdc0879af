"""``turnpike invoices``: list, show, preview, close."""

from urllib.parse import quote

import rich_click as click

from app.api.admin.invoices_wire import InvoiceList
from app.billing.invoice_document import Invoice
from app.billing.invoices import InvoiceSummary
from app.billing.month_closing import Closed
from app.cli.client import AdminClient, ask
from app.cli.invocation import Invocation
from app.cli.output import Column, json_option, moment, show_json, show_table, usd

_csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
_html_option = click.option("--html", "as_html", is_flag=True, help="Print a page to print.")


@click.group()
def invoices() -> None:
    """Closed months: one invoice per payer and month (UTC), which never changes."""


@invoices.command("list")
@click.option("--payer", help="Only those of this user or org.")
@click.option("--period", metavar="YYYY-MM", help="Only those of this month.")
@json_option
@click.pass_obj
def list_invoices(
    invocation: Invocation, payer: str | None, period: str | None, as_json: bool
) -> None:
    """List the invoices, newest first."""
    query = {name: value for name, value in (("payer", payer), ("period", period)) if value}
    found = ask(invocation, lambda client: _all(client, query))
    if as_json:
        show_json(found)
        return
    show_table(
        [
            Column("Number"),
            Column("Month"),
            Column("Payer"),
            Column("Total due", number=True),
            Column("Due"),
            Column("Closed"),
        ],
        [
            [
                invoice.number,
                invoice.period,
                invoice.payer_name,
                usd(invoice.total_due_nano_usd),
                invoice.due_on or "-",
                moment(invoice.closed_at_ms),
            ]
            for invoice in found
        ],
        empty="There are no invoices yet: a month is closed when it is over.",
    )


@invoices.command()
@click.argument("number")
@_csv_option
@_html_option
@json_option
@click.pass_obj
def show(invocation: Invocation, number: str, as_csv: bool, as_html: bool, as_json: bool) -> None:
    """Show the invoice NUMBER."""

    async def work(client: AdminClient) -> Invoice:
        path = f"/api/invoices/{quote(number, safe='')}"
        return await client.send("GET", path, Invoice, query={"format": "json"})

    _show(ask(invocation, work), as_csv, as_html, as_json)


@invoices.command()
@click.argument("payer")
@_csv_option
@_html_option
@json_option
@click.pass_obj
def preview(invocation: Invocation, payer: str, as_csv: bool, as_html: bool, as_json: bool) -> None:
    """Show the month of PAYER, a user or an org, so far. It is not final."""
    query = {"format": "json", "payer": payer}

    async def work(client: AdminClient) -> Invoice:
        return await client.send("GET", "/api/invoices/preview", Invoice, query=query)

    _show(ask(invocation, work), as_csv, as_html, as_json)


@invoices.command()
@json_option
@click.pass_obj
def close(invocation: Invocation, as_json: bool) -> None:
    """Make the invoices that are due, now. The server does it every hour by itself."""

    async def work(client: AdminClient) -> Closed:
        return await client.send("POST", "/api/invoices/close", Closed)

    closed = ask(invocation, work)
    if as_json:
        show_json(closed)
        return
    click.echo(f"{len(closed.invoices)} invoices were made.")
    for what in closed.waiting:
        click.echo(f"{what}: waits for calls that have not ended.")
    for what in closed.refused:
        click.echo(f"{what}: refused, the books differ; the log says where.")


async def _all(client: AdminClient, query: dict[str, str]) -> list[InvoiceSummary]:
    found: list[InvoiceSummary] = []
    before: int | None = None
    while True:
        asked = query | ({} if before is None else {"before": str(before)})
        page = await client.send("GET", "/api/invoices", InvoiceList, query=asked)
        found += page.data
        before = page.next_before
        if before is None:
            return found


def _show(invoice: Invoice, as_csv: bool, as_html: bool, as_json: bool) -> None:
    if as_json:
        show_json(invoice)
    elif as_csv:
        from app.billing.invoice_csv import to_csv

        click.echo(to_csv(invoice).decode(), nl=False)
    elif as_html:
        from app.billing.invoice_html import to_html

        click.echo(to_html(invoice).decode(), nl=False)
    else:
        _show_lines(invoice)


def _show_lines(invoice: Invoice) -> None:
    totals = invoice.totals
    rows = [
        ["Usage", f"{line.provider or '-'} {line.model}", str(line.calls), usd(line.cost_nano_usd)]
        for line in invoice.usage
    ]
    for endpoint in invoice.endpoints:
        amount = usd(endpoint.amount_nano_usd)
        rows.append(["Endpoint, minutes", endpoint.endpoint_id, str(endpoint.minutes), amount])
    for fee in invoice.fees:
        rows.append(["Tier", fee.tier, str(fee.quantity), usd(fee.amount_nano_usd)])
    if totals.adjustments_due_nano_usd:
        amount = usd(totals.adjustments_due_nano_usd)
        rows.append(["Corrections", "past the credit", "", amount])
    for credit in invoice.credit:
        if credit.used_nano_usd:
            what = f"{credit.kind} {credit.reference}"
            rows.append(["Credit used", what, "", usd(-credit.used_nano_usd)])
    due = "Total due" if invoice.final else "Due so far"
    rows.append([due, f"{invoice.payer.name} {invoice.period}", "", usd(totals.total_due_nano_usd)])
    show_table(
        [
            Column("What"),
            Column("Of"),
            Column("Quantity", number=True),
            Column("Amount", number=True),
        ],
        rows,
        empty="",
    )
