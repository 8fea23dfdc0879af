"""An invoice as a page and as a table: whatever names are in it, they stay text."""

import csv
import io
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.billing.invoice_csv import cell, seconds, to_csv
from app.billing.invoice_document import (
    AdjustmentLine,
    CreditLine,
    EndpointLine,
    FeeLine,
    Invoice,
    InvoicePayer,
    Seller,
    Totals,
    UsageLine,
    decode,
)
from app.billing.invoice_html import content_security_policy, to_html

HOSTILE = '<script>alert("x")</script><img src=//evil onerror=1>{{ 7 * 7 }}'
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)


def invoice(name: str = "Acme", **fields: Any) -> Invoice:
    """One with every kind of line, all of whose texts are ``name``."""
    made = Invoice(
        number=name,
        sequence=7,
        final=True,
        period="2026-03",
        closed_at_ms=1_775_001_600_000,
        due_on="2026-05-01",
        seller=Seller(name=name, address=(name, name), note=name),
        payer=InvoicePayer(id=name, name=name, kind="org", tier=name, seats=3),
        usage=(
            UsageLine(
                provider=name,
                model=name,
                calls=1_234,
                byok_calls=4,
                input_tokens=10,
                cache_read_tokens=20,
                cache_write_tokens=30,
                output_tokens=40,
                reasoning_tokens=50,
                audio_input_tokens=60,
                audio_output_tokens=70,
                images=80,
                characters=9_000,
                audio_ms=61_500,
                video_ms=8_000,
                compute_ns=1_500_000_000,
                cost_nano_usd=7_000_000_001,
            ),
        ),
        fees=(FeeLine(tier=name, quantity=3, unit_nano_usd=20, amount_nano_usd=60),),
        endpoints=(EndpointLine(endpoint_id=name, minutes=9, amount_nano_usd=5),),
        adjustments=(AdjustmentLine(id=name, at_ms=0, reason=name, amount_nano_usd=-11),),
        credit=(
            CreditLine(
                grant_id=1,
                kind=name,
                reference=name,
                note=name,
                expires_at_ms=None,
                given_nano_usd=100,
                used_nano_usd=90,
                adjusted_nano_usd=1,
                expired_nano_usd=2,
                left_nano_usd=7,
            ),
        ),
        totals=Totals(
            usage_nano_usd=7_000_000_001,
            endpoints_nano_usd=5,
            fees_nano_usd=60,
            adjustments_due_nano_usd=10,
            credit_used_nano_usd=90,
            overage_due_nano_usd=6_999_999_921,
            endpoints_due_nano_usd=5,
            fees_due_nano_usd=60,
            total_due_nano_usd=6_999_999_986,
        ),
    )
    return msgspec.structs.replace(made, **fields)


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_the_amounts_exactly() -> None:
    page = Page(to_html(invoice()))
    for shown in ("$7.000000001", "$6.999999986", "-$0.00000009", "1,234", "1.5", "2026-05-01"):
        assert shown in page.text
    assert (
        "audio tokens in 60, audio tokens out 70, images 80, characters 9,000, audio seconds 61.5,"
        " video seconds 8"
    ) in page.text
    assert "Total due" in page.text
    assert "Not final" not in page.text


def test_a_preview_says_that_it_is_not_final() -> None:
    draft = invoice(number=None, sequence=None, final=False, closed_at_ms=None, due_on=None)
    page = Page(to_html(draft))
    assert "Not final" in page.text
    assert "None" not in page.text
    assert b"preview,2026-03" in to_csv(draft)


def test_hostile_names_are_text() -> None:
    plain, page = Page(to_html(invoice())), Page(to_html(invoice(HOSTILE)))
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes
    assert page.text.count(HOSTILE) == plain.text.count("Acme") > 10


@settings(max_examples=50, deadline=None)
@given(TEXT)
def test_any_name_is_text(name: str) -> None:
    plain, page = Page(to_html(invoice())), Page(to_html(invoice(f"x{name}y")))
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes


def test_the_page_needs_nothing_but_itself() -> None:
    page = Page(to_html(invoice()))
    assert {"script", "link", "img", "iframe", "form", "base"}.isdisjoint(page.tags)
    assert {"src", "href", "style", "onload", "action"}.isdisjoint(page.attributes)
    html = to_html(invoice()).decode()
    assert "://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert "@media print" in html
    policy = content_security_policy()
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def table(found: Invoice) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(found).decode(), newline="")))


def test_the_table_adds_up() -> None:
    rows = table(invoice())
    (usage,) = [row for row in rows if row["section"] == "usage"]
    assert (usage["item"], usage["detail"], usage["quantity"]) == ("Acme", "Acme", "1234")
    assert (usage["cache_write_tokens"], usage["compute_seconds"]) == ("30", "1.5")
    assert (usage["images"], usage["characters"]) == ("80", "9000")
    assert (usage["audio_seconds"], usage["video_seconds"]) == ("61.5", "8")
    summands = {"usage", "fee", "endpoint", "adjustment_due", "credit_used"}
    total = sum(Decimal(row["amount_usd"]) for row in rows if row["section"] in summands)
    (due,) = [row["amount_usd"] for row in rows if row["section"] == "total_due"]
    assert total == Decimal(due) == Decimal("6.999999986")


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "\u00a0=1",
        "\uff1d1",
        "\ufeff=1",
    ],
)
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"
    for row in table(invoice(text)):
        for name in ("invoice", "payer", "item", "detail"):
            assert not row[name].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))


@settings(max_examples=100)
@given(TEXT)
def test_other_names_stay_as_they_are(name: str) -> None:
    safe = f"a{name}"
    assert cell(safe) == safe
    assert table(invoice(safe))[0]["payer"] == safe


@pytest.mark.parametrize(
    ("ns", "text"), [(0, "0"), (10**9, "1"), (1, "0.000000001"), (100 * 10**9, "100")]
)
def test_seconds_are_exact(ns: int, text: str) -> None:
    assert seconds(ns) == text


def test_a_document_of_before_the_quantities_is_read_and_shown_without_them() -> None:
    names = ("characters", "audio_ms", "video_ms")
    text = msgspec.json.decode(msgspec.json.encode(invoice()))
    for line in text["usage"]:
        for name in names:
            del line[name]
    found = decode(msgspec.json.encode(text))
    assert [getattr(found.usage[0], name) for name in names] == [0, 0, 0]
    page = Page(to_html(found))
    assert "audio tokens in 60, audio tokens out 70, images 80" in page.text
    assert "characters" not in page.text
    assert table(found)[0]["audio_seconds"] == "0"


def test_a_line_of_text_has_no_other_quantities() -> None:
    (line,) = invoice().usage
    plain = dict.fromkeys(("audio_input_tokens", "audio_output_tokens", "images"), 0)
    plain |= dict.fromkeys(("characters", "audio_ms", "video_ms"), 0)
    page = Page(to_html(invoice(usage=(msgspec.structs.replace(line, **plain),))))
    assert "audio" not in page.text
    assert "images" not in page.text


def test_a_document_survives_its_encoding() -> None:
    assert decode(msgspec.json.encode(invoice(HOSTILE))) == invoice(HOSTILE)
