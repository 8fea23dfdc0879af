"""``/api/invoices``: whose invoices each key sees, and in which form."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.billing.month_closing import GRACE_MS
from app.clock import month_ms, period_of
from tests.app.billing.till import Till, open_till


class Toll:
    """A till with a closed month: ann, ben, and the org acme of which ann is an admin and ben a
    member; eve belongs to nothing, root is an owner. Their keys by name."""

    def __init__(self, till: Till) -> None:
        self.till = till
        self.keys: dict[str, str] = {"nobody": "", "stranger": "tp_" + "x" * 43}
        self.numbers: dict[str, str] = {}

    async def open(self) -> None:
        till = self.till
        for name in ("ann", "ben", "eve"):
            self.keys[name] = await till.user(name)
        self.keys["root"] = await till.user("root", role="owner")
        await till.org("acme", "team", ann="admin", ben="member")
        await till.call(self.keys["ann"], 1_000)
        await till.call(self.keys["ben"], 2_000)
        await till.call(self.keys["ben"], 4_000, bill_to="acme")
        self.month = period_of(till.clock.now_ms())
        till.clock.ms = month_ms(self.month)[1] + GRACE_MS
        closed = await till.ask("POST", "/api/invoices/close")
        assert (closed.status_code, len(closed.json()["invoices"])) == (200, 3)
        for invoice in (await till.got("/api/invoices"))["data"]:
            self.numbers[invoice["payer_name"]] = invoice["number"]

    async def status(self, who: str, path: str, **query: Any) -> int:
        response = await self.till.ask("GET", path, self.keys[who], **query)
        if response.status_code >= 400:
            assert response.json()["error"]["message"]
        return response.status_code

    async def payers(self, who: str, **query: Any) -> list[str]:
        found = await self.till.got("/api/invoices", self.keys[who], **query)
        return [invoice["payer_name"] for invoice in found["data"]]


@pytest.fixture
async def toll(tmp_path: Path) -> AsyncIterator[Toll]:
    async with open_till(tmp_path) as till:
        opened = Toll(till)
        await opened.open()
        yield opened


async def test_a_list_has_ones_own(toll: Toll) -> None:
    assert await toll.payers("ann") == ["ann"]
    assert await toll.payers("eve") == []
    assert await toll.payers("ann", org="acme") == ["acme"]
    assert sorted(await toll.payers("root")) == ["acme", "ann", "ben"]
    assert await toll.payers("root", payer="ben") == ["ben"]
    assert await toll.payers("root", org="acme") == ["acme"]
    assert await toll.payers("root", period="1999-01") == []
    (invoice,) = (await toll.till.got("/api/invoices", toll.keys["ben"], period=toll.month))["data"]
    assert (invoice["period"], invoice["payer_name"]) == (toll.month, "ben")
    assert invoice["total_due_usd"] == "0.00"
    assert invoice["total_due_nano_usd"] == 0


async def test_lists_have_pages(toll: Toll) -> None:
    first = await toll.till.got("/api/invoices", limit=2)
    assert [invoice["sequence"] for invoice in first["data"]] == [3, 2]
    rest = await toll.till.got("/api/invoices", limit=2, before=first["next_before"])
    assert [invoice["sequence"] for invoice in rest["data"]] == [1]
    assert rest["next_before"] is None


LISTS: list[tuple[str, str, dict[str, str], int]] = [
    ("nobody", "/api/invoices", {}, 401),
    ("stranger", "/api/invoices", {}, 401),
    ("ben", "/api/invoices", {"org": "acme"}, 403),
    ("eve", "/api/invoices", {"org": "acme"}, 403),
    ("eve", "/api/invoices", {"org": "nothing"}, 403),
    ("eve", "/api/invoices", {"payer": "ann"}, 403),
    ("ann", "/api/invoices", {"payer": "ann"}, 403),
    ("root", "/api/invoices", {"payer": "gone"}, 404),
    ("root", "/api/invoices", {"org": "ann"}, 400),
    ("root", "/api/invoices", {"org": "acme", "payer": "ann"}, 400),
    ("root", "/api/invoices", {"period": "2026-13"}, 400),
    ("root", "/api/invoices", {"before": "0"}, 400),
    ("root", "/api/invoices", {"colour": "red"}, 400),
    ("nobody", "/api/invoices/preview", {}, 401),
    ("eve", "/api/invoices/preview", {}, 200),
    ("ann", "/api/invoices/preview", {"org": "acme"}, 200),
    ("ben", "/api/invoices/preview", {"org": "acme"}, 403),
    ("eve", "/api/invoices/preview", {"payer": "ann"}, 403),
    ("root", "/api/invoices/preview", {"payer": "ann"}, 200),
    ("root", "/api/invoices/preview", {}, 400),
    ("root", "/api/invoices/preview", {"payer": "ann", "format": "pdf"}, 400),
]


@pytest.mark.parametrize(("who", "path", "query", "status"), LISTS)
async def test_who_may_ask_what(
    toll: Toll, who: str, path: str, query: dict[str, str], status: int
) -> None:
    assert await toll.status(who, path, **query) == status


async def test_every_key_sees_exactly_its_own_invoices(toll: Toll) -> None:
    """Who × whose: an invoice of others looks like one that does not exist."""
    seen = {
        "nobody": {},
        "stranger": {},
        "eve": set[str](),
        "ann": {"ann", "acme"},
        "ben": {"ben"},
        "root": {"ann", "ben", "acme"},
    }
    for who, visible in seen.items():
        for whose, number in toll.numbers.items():
            for suffix in ("", ".json", ".csv", ".html"):
                status = await toll.status(who, f"/api/invoices/{number}{suffix}")
                if who in {"nobody", "stranger"}:
                    assert status == 401
                else:
                    assert status == (200 if whose in visible else 404), (who, whose, suffix)
    assert await toll.status("root", "/api/invoices/99") == 404
    missing = await toll.till.ask("GET", "/api/invoices/99", toll.keys["eve"])
    hidden = await toll.till.ask("GET", f"/api/invoices/{toll.numbers['ann']}", toll.keys["eve"])
    same = hidden.json()["error"]["message"].replace(toll.numbers["ann"], "99")
    assert same == missing.json()["error"]["message"]


async def test_only_owners_close(toll: Toll) -> None:
    for who, status in (("nobody", 401), ("stranger", 401), ("ann", 403), ("root", 200)):
        response = await toll.till.ask("POST", "/api/invoices/close", toll.keys[who])
        assert response.status_code == status


async def test_an_admin_who_left_sees_the_orgs_invoices_no_more(toll: Toll) -> None:
    path = f"/api/invoices/{toll.numbers['acme']}"
    assert await toll.status("ann", path) == 200
    await toll.till.sql("UPDATE members SET role = 'member'")
    assert await toll.status("ann", path) == 404
    assert await toll.status("ann", "/api/invoices", org="acme") == 403


@pytest.mark.parametrize(
    ("suffix", "query", "accept", "media_type"),
    [
        ("", {}, "*/*", "application/json"),
        ("", {}, "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("", {}, "text/csv", "text/csv; charset=utf-8"),
        ("", {}, "image/png", "application/json"),
        (".csv", {}, "text/html", "text/csv; charset=utf-8"),
        (".html", {}, "*/*", "text/html; charset=utf-8"),
        (".json", {}, "text/html", "application/json"),
        (".csv", {"format": "json"}, "*/*", "application/json"),
        ("", {"format": "html"}, "*/*", "text/html; charset=utf-8"),
    ],
)
async def test_the_form_follows_the_request(
    toll: Toll, suffix: str, query: dict[str, str], accept: str, media_type: str
) -> None:
    response = await toll.till.http.get(
        f"/api/invoices/{toll.numbers['ann']}{suffix}",
        params=query,
        headers={"authorization": f"Bearer {toll.keys['ann']}", "accept": accept},
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == media_type
    assert response.headers["x-content-type-options"] == "nosniff"
    if media_type.startswith("text/html"):
        assert "default-src 'none'" in response.headers["content-security-policy"]
    if media_type.startswith("text/csv"):
        assert response.headers["content-disposition"].startswith("attachment; ")


async def test_json_is_the_stored_document_byte_by_byte(toll: Toll) -> None:
    till, number = toll.till, toll.numbers["acme"]
    before = await till.ask("GET", f"/api/invoices/{number}")
    ((stored,),) = await till.sql(
        "SELECT document FROM invoices WHERE number = ?", before.json()["sequence"]
    )
    assert before.content == stored
    await till.sql("UPDATE orgs SET name = 'other'")
    await till.call(toll.keys["ben"], 9_000, bill_to="other")
    assert (await till.ask("GET", f"/api/invoices/{number}")).content == stored
    assert before.json()["payer"]["seats"] == 2
    assert before.json()["totals"]["usage_nano_usd"] == 4_000


async def test_a_preview_is_the_month_so_far(toll: Toll) -> None:
    await toll.till.call(toll.keys["eve"], 77)
    found = await toll.till.got("/api/invoices/preview", toll.keys["eve"])
    assert (found["final"], found["number"]) == (False, None)
    assert found["period"] == period_of(toll.till.clock.now_ms()) != toll.month
    assert found["totals"]["usage_nano_usd"] == 77
    nothing = await toll.till.got("/api/invoices/preview", toll.keys["root"], payer="ben")
    assert nothing["usage"] == []
