"""An invoice as one HTML page to read and to print: no scripts, nothing loaded from elsewhere."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from app.billing.amounts import decimal_usd
from app.billing.invoice_csv import NS_PER_MS, seconds
from app.billing.invoice_document import Invoice, UsageLine


def to_html(invoice: Invoice) -> bytes:
    """The whole page, UTF-8. Everything that comes from the document is escaped."""
    # Markup: the style sheet is this program's own file.
    style = Markup(_style())  # noqa: S704
    return _template().render(invoice=invoice, style=style).encode()


@cache
def content_security_policy() -> str:
    """What a browser may do with the page: apply its own style sheet, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )


def _file(name: str) -> str:
    folder = resources.files("app.billing").joinpath("templates")
    return folder.joinpath(name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    return _file("invoice.css")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["usd"] = _usd
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["seconds"] = seconds
    environment.filters["others"] = _others
    environment.filters["date"] = _date
    return environment.from_string(_file("invoice.html"))


def _others(line: UsageLine) -> str:
    """What a line has beside text and compute, in words; '' where it has none."""
    counts = (
        ("audio tokens in", f"{line.audio_input_tokens:,}", line.audio_input_tokens),
        ("audio tokens out", f"{line.audio_output_tokens:,}", line.audio_output_tokens),
        ("images", f"{line.images:,}", line.images),
        ("characters", f"{line.characters:,}", line.characters),
        ("audio seconds", seconds(line.audio_ms * NS_PER_MS), line.audio_ms),
        ("video seconds", seconds(line.video_ms * NS_PER_MS), line.video_ms),
    )
    return ", ".join(f"{name} {shown}" for name, shown, count in counts if count)


def _usd(nano_usd: int) -> str:
    """``-$1,234.50``, exactly."""
    whole, _, places = decimal_usd(abs(nano_usd)).partition(".")
    return f"{'-' if nano_usd < 0 else ''}${int(whole):,}.{places}"


def _date(at_ms: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
    return moment.date().isoformat()
