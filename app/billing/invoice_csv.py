"""An invoice as CSV (RFC 4180), one line of the invoice per row, safe to open in a spreadsheet."""

import csv
import io
import re
from collections.abc import Iterator

from app.billing.amounts import decimal_usd
from app.billing.invoice_document import Invoice, UsageLine

_COLUMNS = (
    "invoice",
    "period",
    "payer",
    "section",
    "item",
    "detail",
    "quantity",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "images",
    "characters",
    "audio_seconds",
    "video_seconds",
    "compute_seconds",
    "amount_usd",
)
_BUCKETS = len(_COLUMNS) - 8
NS_PER_MS = 1_000_000
# What a spreadsheet takes for the beginning of a formula, also in its full-width forms and behind
# what it does not show.
_FORMULA = re.compile("[\\s\x00-\x1f\u200b\ufeff]*[-=+@\uff1d\uff0b\uff0d\uff20]|[\x00\t\r\n]")


def to_csv(invoice: Invoice) -> bytes:
    """The whole file, UTF-8. Amounts are exact decimals of USD; ``section`` says what a row is:
    the rows ``usage``, ``fee``, ``endpoint``, ``adjustment_due`` and ``credit_used`` add up to
    ``total_due``; the others are for information."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    head = (cell(invoice.number or "preview"), invoice.period, cell(invoice.payer.name))
    for row in _rows(invoice):
        writer.writerow((*head, *row))
    return text.getvalue().encode()


def cell(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula: an apostrophe goes before it."""
    return f"'{text}" if _FORMULA.match(text) else text


def _rows(invoice: Invoice) -> Iterator[tuple[str | int, ...]]:
    totals = invoice.totals
    for line in invoice.usage:
        yield (
            *("usage", cell(line.provider), cell(line.model), line.calls),
            *_buckets(line),
            decimal_usd(line.cost_nano_usd),
        )
    for fee in invoice.fees:
        detail = f"{decimal_usd(fee.unit_nano_usd)} each"
        yield _row("fee", fee.tier, detail, fee.quantity, fee.amount_nano_usd)
    for endpoint in invoice.endpoints:
        amount = endpoint.amount_nano_usd
        yield _row("endpoint", endpoint.endpoint_id, "minutes", endpoint.minutes, amount)
    yield _row("adjustment_due", "", "past the credit", "", totals.adjustments_due_nano_usd)
    for credit in invoice.credit:
        if credit.used_nano_usd:
            yield _row("credit_used", credit.kind, credit.reference, "", -credit.used_nano_usd)
    yield _row("total_due", "", "USD", "", totals.total_due_nano_usd)
    yield _row("overage_due", "", "part of the total", "", totals.overage_due_nano_usd)
    yield _row("fees_due", "", "part of the total", "", totals.fees_due_nano_usd)
    yield _row("endpoints_due", "", "part of the total", "", totals.endpoints_due_nano_usd)
    for adjustment in invoice.adjustments:
        amount = adjustment.amount_nano_usd
        yield _row("adjustment", adjustment.id, adjustment.reason, "", amount)
    for credit in invoice.credit:
        for section, amount in (
            ("credit_given", credit.given_nano_usd),
            ("credit_adjusted", -credit.adjusted_nano_usd),
            ("credit_expired", -credit.expired_nano_usd),
            ("credit_left", credit.left_nano_usd),
        ):
            if amount:
                yield _row(section, credit.kind, credit.reference, "", amount)


def _row(
    section: str, item: str, detail: str, quantity: int | str, amount_nano_usd: int
) -> tuple[str | int, ...]:
    amount = decimal_usd(amount_nano_usd)
    return (section, cell(item), cell(detail), quantity, *("",) * _BUCKETS, amount)


def _buckets(line: UsageLine) -> tuple[str | int, ...]:
    return (
        line.input_tokens,
        line.cache_read_tokens,
        line.cache_write_tokens,
        line.output_tokens,
        line.reasoning_tokens,
        line.audio_input_tokens,
        line.audio_output_tokens,
        line.images,
        line.characters,
        seconds(line.audio_ms * NS_PER_MS),
        seconds(line.video_ms * NS_PER_MS),
        seconds(line.compute_ns),
    )


def seconds(nanoseconds: int) -> str:
    """Seconds as an exact decimal, without zeros at its end."""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
